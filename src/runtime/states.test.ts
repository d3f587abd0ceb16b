import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import type { OnnxModel } from '../onnx/index.ts'
import { groupQuery } from '../onnx/testing/published/fused.ts'
import { type HybridOptions, hybridAttention } from '../onnx/testing/published/hybrid.ts'
import { fusedDecoder, plainDecoder } from '../onnx/testing/published/scaffold.ts'
import { createCustom } from '../onnx/testing/published/styles.ts'
import type { DecoderSettings, PublishedWriter } from '../onnx/testing/published/writer.ts'
import type { CausalLM } from './contract.ts'
import { loadModel } from './load-model.ts'
import { cutLogits, deviation, temporaryFolders, tokensOf, uncutLogits, withModel } from './testing/published-folder.ts'

const writeFolder = temporaryFolders()

const settings = { layers: 4 }
const hybrid = (options: HybridOptions, other: Partial<DecoderSettings> = {}): OnnxModel =>
  createCustom((w) => plainDecoder(w, hybridAttention(w, options)), { ...settings, ...other })
const prompt = 21
const tokens = tokensOf(prompt + 64)

/** Fused layers of which the first has a mask that can't be taken over. */
const oddFirstLayer = (): OnnxModel =>
  createCustom((w) => fusedDecoder(w, groupQuery(w, { bias: 'strange', biasLayers: [0] })))

async function lastLogits(model: CausalLM, cache: ReturnType<CausalLM['createCache']>, text: readonly number[]) {
  return (await model.forward([{ cache, tokens: text }])).data as Float32Array
}

describe('a decoder with states of convolutions', () => {
  it.each([
    ['convolutions first and last', { attention: [1, 2] }, {}],
    ['attention first and last', { attention: [0, 3] }, {}],
    ['one attention, tokens masked behind the past', { attention: [2], masks: true }, {}],
    ['fp16', { attention: [1] }, { weights: 'fp16' }],
    ['q4', { attention: [1] }, { weights: 'q4' }],
  ] as const)('gives the logits of the uncut graph, token by token: %s', async (_, options, other) => {
    const { folder, file } = await writeFolder(hybrid(options, other))
    const expected = await uncutLogits(file, tokens, prompt)
    const limit = 'weights' in other && other.weights === 'fp16' ? 1e-2 : 1e-4
    await withModel(folder, {}, async (model) => {
      expect(deviation(await cutLogits(model, tokens, prompt), expected)).toBeLessThanOrEqual(limit)
      expect(deviation(await cutLogits(model, tokens, 1), expected)).toBeLessThanOrEqual(limit)
    })
  })

  it('reads many sequences at once as it reads each alone, in pieces and whole', async () => {
    const { folder } = await writeFolder(hybrid({ attention: [1], masks: true }))
    await withModel(folder, { chunkSize: 8 }, async (model) => {
      const texts = [5, 1, 40, 17].map((length, i) => tokensOf(length, i))
      const caches = texts.map(() => model.createCache())
      const { data } = await model.forward(texts.map((text, i) => ({ cache: caches[i]!, tokens: text })))
      for (const [i, text] of texts.entries()) {
        const alone = (await cutLogits(model, text, text.length)).slice(-model.vocabSize)
        const row = (data as Float32Array).subarray(i * model.vocabSize, (i + 1) * model.vocabSize)
        expect(deviation(row, alone)).toBeLessThanOrEqual(1e-5)
      }
      const next = caches.map((cache, i) => ({ cache, tokens: tokensOf(3, 20 + i) }))
      const after = (await model.forward(next)).data as Float32Array
      for (const [i, text] of texts.entries()) {
        const all = [...text, ...tokensOf(3, 20 + i)]
        const alone = (await cutLogits(model, all, all.length)).slice(-model.vocabSize)
        const row = after.subarray(i * model.vocabSize, (i + 1) * model.vocabSize)
        expect(deviation(row, alone)).toBeLessThanOrEqual(1e-5)
      }
      for (const cache of caches) cache.dispose()
    })
  })

  it('forks and resets the states with the cache, which can not go back', async () => {
    const { folder } = await writeFolder(hybrid({ attention: [1] }))
    await withModel(folder, {}, async (model) => {
      const cache = model.createCache()
      const fresh = await lastLogits(model, cache, tokens.slice(0, 4))
      expect(cache.truncate).toBeUndefined()
      const fork = cache.fork()
      const on = await lastLogits(model, cache, tokens.slice(4, 9))
      await model.prefill(fork, tokensOf(7, 99))
      const again = cache.fork()
      expect(deviation(await lastLogits(model, again, [3]), await lastLogits(model, cache, [3]))).toBe(0)
      cache.reset()
      expect(deviation(await lastLogits(model, cache, tokens.slice(0, 4)), fresh)).toBe(0)
      expect(deviation(await lastLogits(model, cache, tokens.slice(4, 9)), on)).toBe(0)
      fork.reset()
      expect(deviation(await lastLogits(model, fork, tokens.slice(0, 4)), fresh)).toBe(0)
      // Three convolutions of 64 channels by three tokens, in f32.
      const keys = model.describe().kvBytesPerToken * 4
      expect(fork.getCacheInfo().fullBytes).toBe(keys + 3 * 64 * 3 * 4)
    })
  })

  it('answers the same with a draft, in beams and in a conversation as from nothing', async () => {
    const { folder } = await writeFolder(hybrid({ attention: [1] }))
    await writeFile(join(folder, 'chat_template.jinja'), '{% for m in messages %}{{ m.content }}{% endfor %}')
    await withModel(folder, {}, async (model) => {
      const text = tokens.slice(0, 30)
      const plain = await model.generate(text, { maxNewTokens: 24, temperature: 0 })
      const drafted = await model.generate(text, { maxNewTokens: 24, temperature: 0, promptLookupTokens: 4 })
      expect(drafted.tokens).toEqual(plain.tokens)
      const beams = await model.generate(text, { maxNewTokens: 6, numBeams: 3 })
      expect(beams.tokens.length).toBeGreaterThan(0)
      const options = { maxNewTokens: 5, temperature: 0 }
      const conversation = model.startConversation(options)
      await conversation.send('abc abc')
      const second = await conversation.send('and more')
      const whole = await model.generate(conversation.messages.slice(0, -1), options)
      expect(second.tokens).toEqual(whole.tokens)
      expect(second.reusedTokens).toBeGreaterThan(0)
      conversation.dispose()
    })
  })

  it('bounds what attention keeps, and not the states', async () => {
    const { folder } = await writeFolder(hybrid({ attention: [1] }))
    await withModel(folder, {}, async (model) => {
      const full = await cutLogits(model, tokens, prompt)
      expect(
        deviation(await cutLogits(model, tokens, prompt, { policy: 'window', window: 100 }), full),
      ).toBeLessThanOrEqual(1e-5)
      const cache = model.createCache({ policy: 'window', window: 16 })
      await model.prefill(cache, tokens)
      expect(cache.getCacheInfo()).toMatchObject({ keptTokens: 16, seenTokens: tokens.length })
    })
  })

  it('refuses caches that know no states', async () => {
    const [a, b] = [hybrid({ attention: [1] }), createCustom((w) => fusedDecoder(w, groupQuery(w, {})), { layers: 1 })]
    const folders = [await writeFolder(a), await writeFolder(b)]
    await withModel(folders[0]!.folder, {}, (first) =>
      withModel(folders[1]!.folder, {}, async (second) => {
        const error = first.forward([{ cache: second.createCache(), tokens: [1] }])
        await expect(error).rejects.toMatchObject({ code: 'invalid-argument' })
      }),
    )
  })

  it('goes on token by token where several at once would begin anew, and says so', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => undefined)
    const { folder, file } = await writeFolder(hybrid({ attention: [1], startsAnew: true }))
    const expected = await uncutLogits(file, tokens, prompt)
    await withModel(folder, {}, async (model) => {
      expect(warn.mock.calls.map(([text]) => String(text)).join()).toContain('one token at a time')
      const cache = model.createCache()
      const rows = [
        await lastLogits(model, cache, tokens.slice(0, prompt)),
        await lastLogits(model, cache, tokens.slice(prompt)),
      ]
      const at = (index: number) => expected.subarray(index * model.vocabSize, (index + 1) * model.vocabSize)
      expect(deviation(rows[0]!, at(prompt - 1))).toBeLessThanOrEqual(1e-4)
      expect(deviation(rows[1]!, at(tokens.length - 1))).toBeLessThanOrEqual(1e-4)
    })
    warn.mockRestore()
  })
})

describe('an attention that can not be taken over beside one that can', () => {
  it('stays with ONNX Runtime, with a warning that says so', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => undefined)
    const { folder, file } = await writeFolder(oddFirstLayer())
    const expected = await uncutLogits(file, tokens, prompt)
    await withModel(folder, {}, async (model) => {
      const said = warn.mock.calls.map(([text]) => String(text)).join()
      expect(said).toContain('ONNX Runtime keeps past_key_values.0.key, past_key_values.0.value')
      expect(said).toContain('its mask adds to the logits what is not ALiBi')
      expect(model.describe().attention).toHaveLength(1)
      expect(deviation(await cutLogits(model, tokens, prompt), expected)).toBeLessThanOrEqual(1e-4)
      const text = tokens.slice(0, 40)
      const entries = [text, tokensOf(9, 3)].map((part) => ({ cache: model.createCache(), tokens: part }))
      const together = (await model.forward(entries)).data as Float32Array
      const row = expected.subarray(39 * model.vocabSize, 40 * model.vocabSize)
      expect(deviation(together.subarray(0, model.vocabSize), row)).toBeLessThanOrEqual(1e-4)
    })
    warn.mockRestore()
  })
})

describe('a node that brings tokens together', () => {
  /** A node on the normed rows before the head. */
  const beforeHead = (write: (w: PublishedWriter, rows: string) => string): OnnxModel =>
    createCustom((w) => {
      fusedDecoder(w, groupQuery(w, {}))
      const [head, cast] = w.nodes.splice(-2)
      const rows = write(w, head!.input[0]!)
      w.nodes.push({ ...head!, input: [rows, head!.input[1]!] }, cast!)
    })

  it('is run on one sequence after the other when that gives the same in pieces, with a warning', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => undefined)
    const mean = (w: PublishedWriter, rows: string): string => {
      const mask = w.node('Cast', ['attention_mask'], undefined, { attributes: { to: { int: w.float } } })
      return w.node('Mul', [rows, w.node('ReduceMean', [mask])])
    }
    const { folder, file } = await writeFolder(beforeHead(mean))
    const expected = await uncutLogits(file, tokens, prompt)
    await withModel(folder, {}, async (model) => {
      expect(String(warn.mock.calls[0]?.[0])).toContain('it depends on the number of earlier tokens')
      expect(deviation(await cutLogits(model, tokens, prompt), expected)).toBeLessThanOrEqual(1e-4)
    })
    warn.mockRestore()
  })

  it('is refused when a text read at once is not its tokens one by one', async () => {
    const sum = (w: PublishedWriter, rows: string): string => w.node('CumSum', [rows, w.scalar(1)])
    const { folder } = await writeFolder(beforeHead(sum))
    const error = loadModel(folder, { threads: 1 })
    await expect(error).rejects.toMatchObject({ code: 'unsupported' })
    await expect(error).rejects.toThrow('the logits of its tokens one by one')
  })
})

describe('the description', () => {
  it('says where weights lie, which states pass through, what stays and which policy suits', async () => {
    const { folder, file } = await writeFolder(hybrid({ attention: [1] }))
    await withModel(folder, {}, async (model) => {
      const { states, warnings, weightFiles, weightBytes, policies } = model.describe()
      expect(states).toEqual([0, 2, 3].map((layer) => ({ name: `past_conv.${layer}`, bytes: 64 * 3 * 4 })))
      expect(warnings).toBeUndefined()
      expect(weightFiles).toEqual([{ file, bytes: weightBytes }])
      expect(policies.map(({ policy }) => policy)).toEqual(['full', 'streaming', 'snapkv'])
    })
    vi.spyOn(process, 'emitWarning').mockImplementation(() => undefined)
    const odd = await writeFolder(oddFirstLayer())
    await withModel(odd.folder, {}, async (model) => {
      const { states, warnings } = model.describe()
      expect(states).toEqual(['key', 'value'].map((part) => ({ name: `past_key_values.0.${part}` })))
      expect(warnings![0]).toContain('ONNX Runtime keeps past_key_values.0.key')
    })
    vi.restoreAllMocks()
  })
})
