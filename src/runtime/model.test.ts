import { rm } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { KvCache } from '../cache/contract.ts'
import { type DogeCheckpoint, endToken, writeDogeCheckpoint } from '../onnx/testing/doge-checkpoint.ts'
import { dogeLogits } from '../onnx/testing/doge-reference.ts'
import type { BatchEntry, CausalLM, GenerateOptions } from './contract.ts'
import { collectText } from './generate.ts'
import { loadModel } from './load-model.ts'

let checkpoint: DogeCheckpoint
let model: CausalLM
beforeAll(async () => {
  checkpoint = await writeDogeCheckpoint()
  model = await loadModel(checkpoint.folder, { threads: 1, chunkSize: 8 })
})
afterAll(async () => {
  await model.dispose()
  await rm(checkpoint.folder, { recursive: true })
})

/** Greedy continuation by the f64 reference. */
function expectedTokens(prompt: readonly number[], count: number): number[] {
  const tokens = [...prompt]
  for (let n = 0; n < count; n++) {
    const logits = dogeLogits(checkpoint, tokens).at(-1)!
    tokens.push(logits.indexOf(Math.max(...logits)))
  }
  return tokens.slice(prompt.length)
}

describe('a loaded model', () => {
  it('generates what the f64 reference generates', async () => {
    const prompt = [72, 101, 108, 108, 111, 32, 119, 111, 114, 108, 100]
    const { tokens } = await model.generate(prompt, { maxNewTokens: 12 })
    const expected = expectedTokens(prompt, 12)
    const stop = expected.indexOf(endToken)
    expect(tokens).toEqual(stop < 0 ? expected : expected.slice(0, stop + 1))
  })

  it('refuses to mix the texts of two calls on one cache', async () => {
    const prompt = Array.from({ length: 20 }, (_, i) => (i * 37 + 5) % 250)
    const refused = 'expected a cache that no other call changes meanwhile'
    const disturbed = { code: 'invalid-argument', message: expect.stringContaining(refused) }
    const cache = model.createCache()
    const both = await Promise.allSettled([model.prefill(cache, prompt), model.prefill(cache, prompt)])
    expect(both).toMatchObject([{ status: 'fulfilled' }, { reason: disturbed }])
    expect(cache.seenTokens).toBe(20)

    cache.reset()
    const options = { maxNewTokens: 8, ignoreEos: true }
    const short = prompt.slice(0, 3)
    const alone = await model.generate(short, options)
    const calls = [options, { ...options, numBeams: 2 }].map((each) => model.generate(short, { ...each, cache }))
    const texts = await Promise.allSettled([
      ...calls,
      model.prefill(cache, short),
      collectText(model.stream(short, { cache })),
    ])
    expect(texts[0]).toMatchObject({ value: { tokens: alone.tokens } })
    for (const text of texts.slice(1)) expect(text).toMatchObject({ reason: disturbed })
    expect(cache.seenTokens).toBe(11)

    cache.reset()
    const left = model.stream(short, { ...options, cache })[Symbol.asyncIterator]()
    await left.next()
    expect(await model.generate([1], { ...options, cache })).toMatchObject({ finishReason: 'length' })
    await expect(left.next()).rejects.toMatchObject(disturbed)

    cache.reset()
    const written = (async () => {
      for await (const event of model.stream(prompt, { cache, maxNewTokens: 8, ignoreEos: true })) {
        if (event.type === 'token') await model.prefill(cache, [1])
      }
    })()
    await expect(written).rejects.toMatchObject(disturbed)
    cache.reset()
    const last = model.stream(prompt, { cache, maxNewTokens: 1, ignoreEos: true })[Symbol.asyncIterator]()
    await last.next()
    cache.reset()
    await expect(last.next()).rejects.toThrow(refused)
    cache.dispose()
  })

  it('goes on with a cache as if the text had been one', async () => {
    const prompt = [1, 2, 3, 4, 5]
    const whole = await model.generate(prompt, { maxNewTokens: 8 })
    const cache = model.createCache()
    const first = await model.generate(prompt, { maxNewTokens: 4, cache })
    expect(cache.seenTokens).toBe(9)
    const next = await model.forward([{ cache: cache.fork(), tokens: [7] }])
    const expected = dogeLogits(checkpoint, [...prompt, ...first.tokens, 7]).at(-1)!
    expect(first.tokens).toEqual(whole.tokens.slice(0, 4))
    for (const [i, value] of expected.entries()) expect((next.data as Float32Array)[i]).toBeCloseTo(value, 3)
  })

  for (const policy of ['full', 'linear', 'window'] as const) {
    it(`writes the same text with drafts, samples and beams from caches of policy ${policy}`, async () => {
      const prompt = [5, 6, 7, 5, 6, 7, 5, 6]
      const cacheOf = () => model.createCache({ policy, ...(policy === 'full' ? {} : { window: 6 }) })
      const run = async (options: GenerateOptions) => {
        const cache = cacheOf()
        const result = await model.generate(prompt, { maxNewTokens: 24, ignoreEos: true, cache, ...options })
        const { seenTokens } = cache
        const next = await model.forward([{ cache, tokens: [1] }])
        cache.dispose()
        return { result, seenTokens, next: next.data as Float32Array }
      }
      const greedy = await run({ promptLookupTokens: 4 })
      expect(greedy.result.lookup!.accepted).toBeGreaterThan(0)
      expect(greedy.result.tokens).toEqual((await run({})).result.tokens)
      const varied = { temperature: 20, topK: 4, seed: 8 }
      const plain = await run(varied)
      const drafted = await run({ ...varied, promptLookupTokens: 4 })
      const { drafted: all, accepted } = drafted.result.lookup!
      expect(all).toBeGreaterThan(accepted)
      expect(drafted.result.tokens).toEqual(plain.result.tokens)
      expect(drafted.seenTokens).toBe(32)
      const worst = Math.max(...plain.next.map((value, i) => Math.abs(value - drafted.next[i]!)))
      expect(worst).toBeLessThan(1e-4)
      const sampled = { temperature: 0.8, seed: 3 }
      const both = await run({ ...sampled, n: 2 })
      expect(both.seenTokens).toBe(8)
      expect(both.result.choices[1]!.tokens).toEqual((await run({ ...sampled, seed: 4 })).result.tokens)
      const beams = await run({ numBeams: 3, n: 3 })
      expect(beams.result.choices).toHaveLength(3)
      expect(beams.seenTokens).toBe(8)
    })
  }

  it('forgets the newest tokens of a cache that keeps all', async () => {
    const cache = model.createCache({ policy: 'full' })
    await model.prefill(cache, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    cache.truncate!(6)
    expect(cache.getCacheInfo()).toMatchObject({ seenTokens: 6, keptTokens: 6 })
    const { data } = await model.forward([{ cache, tokens: [20] }])
    const expected = await model.forward([
      { cache: model.createCache({ policy: 'full' }), tokens: [1, 2, 3, 4, 5, 6, 20] },
    ])
    for (const [i, value] of (expected.data as Float32Array).entries()) {
      expect((data as Float32Array)[i]).toBeCloseTo(value, 4)
    }
    expect(() => cache.truncate!(8)).toThrow('expected an integer in 0..7 for length, got 8')
    expect(model.createCache().truncate).toBeUndefined()
  })

  it('refuses a conversation when it has no chat template', async () => {
    const messages = [{ role: 'user', content: 'Hi' }]
    await expect(model.generate(messages)).rejects.toMatchObject({ code: 'unsupported' })
    await expect(model.generate(messages)).rejects.toThrow('expected a chat template')
  })

  it('gives the same logits to calls made at once as to calls made in turn', async () => {
    const prompts = [
      [1, 2, 3],
      [4, 5],
      [6, 7, 8, 9],
    ]
    const one = (tokens: number[]) => model.forward([{ cache: model.createCache(), tokens }])
    const together = await Promise.all(prompts.map(one))
    for (const [i, tokens] of prompts.entries()) {
      expect((await one(tokens)).data).toEqual(together[i]!.data)
    }
  })

  it('takes over options of loadModel into caches, and lets each cache override them', () => {
    expect(model.cacheOptions).toEqual({ policy: 'linear', window: 16 })
    const cache = model.createCache({ policy: 'full', kvDtype: 'f16' })
    expect(cache.getCacheInfo()).toMatchObject({ seenTokens: 0, keptTokens: 0 })
    expect(() => model.createCache({ window: 0 })).toThrow('for window, got 0')
    expect(() => model.createCache({ windows: 3 } as object)).toThrow('did you mean "window"')
  })

  it('keeps the window and no more', async () => {
    const cache = model.createCache({ window: 5 })
    await model.prefill(
      cache,
      Array.from({ length: 50 }, (_, i) => i),
    )
    expect(cache.getCacheInfo()).toMatchObject({ seenTokens: 50, keptTokens: 5, evictedTokens: 45 })
  })

  it('reports progress and can be aborted between chunks', async () => {
    const cache = model.createCache()
    const stop = new AbortController()
    const reading = model.prefill(cache, new Int32Array(20).fill(5), {
      signal: stop.signal,
      onPrefill: (read) => read === 16 && stop.abort(),
    })
    await expect(reading).rejects.toMatchObject({ code: 'aborted' })
    expect(cache.seenTokens).toBe(16)
  })

  it('describes itself', () => {
    const description = model.describe()
    const parameters = [...checkpoint.tensors.values()].reduce((sum, { values }) => sum + values.length, 0)
    expect(description).toMatchObject({ architecture: 'doge', parameters, weightBytes: 4 * parameters })
    expect(description.segments.map(({ name }) => name)).toEqual(['segment 0', 'segment 1', 'segment 2', 'head'])
    expect(description.attention.map(({ layer, numHeads }) => [layer, numHeads])).toEqual([
      [0, 4],
      [1, 4],
    ])
    expect(description.kvBytesPerToken).toBe(2 * 2 * (2 * 8 + 1) * 4)
  })

  const refused: [(cache: KvCache) => unknown, string][] = [
    [() => [], 'expected at least one entry in the batch, got an array of 0'],
    [() => undefined, 'expected at least one entry in the batch, got undefined'],
    [(cache) => [{ cache, tokens: [] }], 'expected at least one token'],
    [(cache) => [{ cache, tokens: 'abc' }], 'expected an array of tokens, got "abc"'],
    [(cache) => [{ cache, tokens: [260] }], 'expected tokens in 0..259, got 260'],
    [(cache) => [{ cache, tokens: [1], logitsOf: [1] }], 'expected an integer in 0..0 for logitsOf, got 1'],
    [(cache) => [{ cache, tokens: [1], logits: true }], 'unknown option "logits" for a batch entry'],
    [
      (cache) => [
        { cache, tokens: [1] },
        { cache, tokens: [2] },
      ],
      'expected a cache of its own for each entry',
    ],
    [() => [{ tokens: [1] }], 'expected a cache of 2 layers, got undefined'],
  ]
  for (const [batch, message] of refused) {
    it(`refuses a batch: ${message}`, async () => {
      const cache = model.createCache()
      await expect(model.forward(batch(cache) as BatchEntry[])).rejects.toThrow(message)
      expect(cache.seenTokens).toBe(0)
    })
  }
})
