import { rm } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { writeDogeCheckpoint } from '../onnx/testing/doge-checkpoint.ts'
import type { CausalLM } from './contract.ts'
import { loadModel } from './load-model.ts'

const [headDim, trained, factor, theta] = [8, 8, 4, 10000]
const long = [72, 101, 108, 108, 111, 32, 119, 111, 114, 108, 100, 33, 10, 71]
const short = [1, 2, 3, 4, 5]
const scaled = {
  ...{ rope_theta: theta, max_position_embeddings: trained },
  rope_scaling: { rope_type: 'dynamic', factor },
}

const rotating = { policy: 'expected-attention', window: 64 } as const

const folders: string[] = []
const models: CausalLM[] = []
async function load(config: Record<string, unknown>, chunkSize = 64): Promise<CausalLM> {
  const { folder } = await writeDogeCheckpoint({ headDim, config })
  folders.push(folder)
  const model = await loadModel(folder, { threads: 1, chunkSize })
  models.push(model)
  return model
}

async function lastLogits(model: CausalLM, chunks: readonly (readonly number[])[], beside?: readonly number[]) {
  const cache = model.createCache()
  let logits = new Float32Array(0)
  for (const tokens of chunks) {
    const others = beside ? [{ cache: model.createCache(), tokens: beside, logitsOf: [] }] : []
    const { data } = await model.forward([...others, { cache, tokens, logitsOf: [tokens.length - 1] }])
    logits = (data as Float32Array).slice()
  }
  return logits
}

function difference(a: Float32Array, b: Float32Array): number {
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0)
}

let model: CausalLM
beforeAll(async () => {
  model = await load(scaled)
})
afterAll(async () => {
  for (const each of models) await each.dispose()
  for (const folder of folders) await rm(folder, { recursive: true })
})

describe('a model whose rotation depends on the length of the text', () => {
  it('reads a text as a model of the grown theta does', async () => {
    const grown = theta * ((factor * long.length) / trained - (factor - 1)) ** (headDim / (headDim - 2))
    const [plain, other] = [await load({ rope_theta: theta }), await load({ rope_theta: grown })]
    const logits = await lastLogits(model, [long])
    expect(difference(logits, await lastLogits(other, [long]))).toBeLessThan(1e-4)
    expect(difference(logits, await lastLogits(plain, [long]))).toBeGreaterThan(1e-3)
    expect(difference(await lastLogits(model, [short]), await lastLogits(plain, [short]))).toBe(0)
  })

  it('goes by the length of each text, not of what is in the batch beside it', async () => {
    expect(difference(await lastLogits(model, [short], long), await lastLogits(model, [short]))).toBeLessThan(1e-5)
    expect(difference(await lastLogits(model, [long], short), await lastLogits(model, [long]))).toBeLessThan(1e-5)
  })

  it.each([1, 3, 8, 13])('goes by the whole text in chunks of %i', async (chunkSize) => {
    const chunked = await load(scaled, chunkSize)
    const expected = await lastLogits(model, [long])
    expect(difference(await lastLogits(chunked, [long]), expected)).toBeLessThan(1e-5)
    const rows = long.map((_, i) => i)
    const all = async (one: CausalLM) => {
      const { data } = await one.forward([
        { cache: one.createCache(), tokens: short, logitsOf: [] },
        { cache: one.createCache(), tokens: long, logitsOf: rows },
      ])
      return data as Float32Array
    }
    expect(difference(await all(chunked), await all(model))).toBeLessThan(1e-5)
  })

  it.each([1, 5])('goes by the whole prompt in prefill and generate, in chunks of %i', async (chunkSize) => {
    const chunked = await load(scaled, chunkSize)
    const next = async (one: CausalLM) => {
      const cache = one.createCache()
      await one.prefill(cache, long)
      return (await one.forward([{ cache, tokens: [7] }])).data as Float32Array
    }
    expect(difference(await next(chunked), await next(model))).toBeLessThan(1e-5)
    const options = { maxNewTokens: 1, logprobs: 3 }
    const [a, b] = [await chunked.generate(long, options), await model.generate(long, options)]
    expect(a.logprobs![0]!.logprob).toBeCloseTo(b.logprobs![0]!.logprob, 5)
  })

  it('goes by the whole text where several calls bring it and say so', async () => {
    const cache = model.createCache()
    await model.forward([{ cache, tokens: long.slice(0, 4), logitsOf: [], following: long.length - 4 }])
    const { data } = await model.forward([{ cache, tokens: long.slice(4) }])
    expect(difference(data as Float32Array, await lastLogits(model, [long]))).toBeLessThan(1e-5)
    await expect(model.forward([{ cache, tokens: [1], following: -1 }])).rejects.toThrow('following')
  })

  it.each([1, 3, 8])(
    'goes by the whole text in caches that rotate by themselves, in chunks of %i',
    async (chunkSize) => {
      const chunked = await load(scaled, chunkSize)
      const logits = async (one: CausalLM) => {
        const cache = one.createCache(rotating)
        expect(cache.layer(0).rotates).toBe(true)
        return (await one.forward([{ cache, tokens: long }])).data as Float32Array
      }
      const expected = await lastLogits(model, [long])
      expect(difference(await logits(chunked), expected)).toBeLessThan(1e-5)
    },
  )

  it('leaves the keys of earlier calls as they are, as transformers does', async () => {
    const chunks = [long.slice(0, 8), long.slice(8)]
    const logits = await lastLogits(model, chunks)
    expect(difference(logits, await lastLogits(model, [long]))).toBeGreaterThan(1e-4)
    // ... while the second call goes by the whole length, not its own.
    expect(difference(logits, await lastLogits(await load({ rope_theta: theta }), chunks))).toBeGreaterThan(1e-4)
  })
})
