import { describe, expect, it } from 'vitest'
import { dataTypes } from '../onnx/schema.ts'
import { groupQuery } from '../onnx/testing/published/fused.ts'
import { fusedDecoder } from '../onnx/testing/published/scaffold.ts'
import { createCustom, createDecoder, styleNames } from '../onnx/testing/published/styles.ts'
import { cutLogits, deviation, temporaryFolders, tokensOf, uncutLogits, withModel } from './testing/published-folder.ts'

const writeFolder = temporaryFolders()

const prompt = 21
const tokens = tokensOf(prompt + 64)

describe('a published decoder, cut', () => {
  // One model for both, since what takes time is to load it. The prompt is read in two pieces.
  it.each(styleNames)(
    'gives the logits of the uncut graph, alone and in a batch of ragged texts: %s',
    async (style) => {
      const { folder, file } = await writeFolder(createDecoder(style))
      const expected = await uncutLogits(file, tokens, prompt)
      await withModel(folder, { chunkSize: 16 }, async (model) => {
        expect(deviation(await cutLogits(model, tokens, prompt), expected)).toBeLessThanOrEqual(1e-4)
        const texts = [5, 1, 40, 17].map((length, i) => tokensOf(length, i))
        const alone: Float32Array[] = []
        for (const text of texts) alone.push((await cutLogits(model, text, text.length)).slice(-model.vocabSize))
        const entries = texts.map((text) => ({ cache: model.createCache(), tokens: text }))
        const { data } = await model.forward(entries)
        const together = data as Float32Array
        for (const [i, last] of alone.entries()) {
          const row = together.subarray(i * model.vocabSize, (i + 1) * model.vocabSize)
          expect(deviation(row, last)).toBeLessThanOrEqual(1e-5)
        }
        for (const { cache } of entries) cache.dispose()
      })
    },
  )

  it('is given positions in three rows where it wants them for images', async () => {
    const model = createCustom((w) => {
      fusedDecoder(w, groupQuery(w, {}))
      w.input('position_ids', dataTypes.int64, [3, 'batch_size', 'sequence_length'])
      const [head, cast] = w.nodes.splice(-2)
      const along = { attributes: { axis: { int: 0 } } }
      const row = (index: number) => w.node('Gather', ['position_ids', w.scalar(index)], undefined, along)
      const sum = w.node('Add', [row(0), w.node('Mul', [row(2), row(1)])])
      const attributes = { to: { int: w.float } }
      const share = w.node('Cast', [w.node('Unsqueeze', [sum, w.integers([2])])], undefined, { attributes })
      const rows = w.node('Add', [head!.input[0]!, w.node('Mul', [share, w.floats([0.001])])])
      w.nodes.push({ ...head!, input: [rows, head!.input[1]!] }, cast!)
    })
    const { folder, file } = await writeFolder(model)
    const expected = await uncutLogits(file, tokens, prompt)
    await withModel(folder, { chunkSize: 16 }, async (loaded) => {
      expect(deviation(await cutLogits(loaded, tokens, prompt), expected)).toBeLessThanOrEqual(1e-4)
    })
  })

  it('gives logits of chosen rows only', async () => {
    const { folder } = await writeFolder(createDecoder('Llama, written out'))
    await withModel(folder, {}, async (model) => {
      const all = await cutLogits(model, tokens, tokens.length)
      const cache = model.createCache()
      const { data } = await model.forward([{ cache, tokens, logitsOf: [3, 40, 84] }])
      const expected = [3, 40, 84].flatMap((row) => [...all.subarray(row * 260, (row + 1) * 260)])
      expect(deviation(data as Float32Array, Float32Array.from(expected))).toBeLessThanOrEqual(1e-5)
      cache.dispose()
    })
  })

  it('sees distances in a window as in the full cache: ALiBi', async () => {
    const { folder } = await writeFolder(createDecoder('ALiBi, written out'))
    await withModel(folder, { chunkSize: 8 }, async (model) => {
      const full = await cutLogits(model, tokens, prompt)
      const bounded = await cutLogits(model, tokens, prompt, { policy: 'window', window: 100 })
      expect(deviation(bounded, full)).toBeLessThanOrEqual(1e-5)
    })
  })

  it('reads shared keys and values from a bounded cache one token at a time, and says so', async () => {
    const { folder } = await writeFolder(createDecoder('shared keys and values'))
    const window = { policy: 'window', window: 100 } as const
    const full = await withModel(folder, {}, (model) => cutLogits(model, tokens, 1))
    await withModel(folder, { chunkSize: 1 }, async (model) => {
      expect(deviation(await cutLogits(model, tokens, prompt, window), full)).toBeLessThanOrEqual(1e-5)
    })
    await withModel(folder, {}, async (model) => {
      await expect(cutLogits(model, tokens, prompt, window)).rejects.toThrow('expected single tokens for shared keys')
    })
  })

  it('has constant memory with a window, and is the full cache while the window holds all', async () => {
    const { folder } = await writeFolder(createDecoder('genai, windows in odd layers, sinks, soft cap, scale'))
    await withModel(folder, {}, async (model) => {
      const full = await cutLogits(model, tokens, prompt)
      const bounded = await cutLogits(model, tokens, prompt, { policy: 'window', window: 100 })
      expect(deviation(bounded, full)).toBeLessThanOrEqual(1e-5)
      const cache = model.createCache({ policy: 'window', window: 16 })
      await model.prefill(cache, tokens)
      expect(cache.getCacheInfo()).toMatchObject({ keptTokens: 16, seenTokens: tokens.length })
      expect(cache.layer(1).info().keptTokens).toBe(9)
      cache.dispose()
    })
  })
})
