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

const folders: string[] = []
const models: CausalLM[] = []
async function load(config: Record<string, unknown>): Promise<CausalLM> {
  const { folder } = await writeDogeCheckpoint({ headDim, config })
  folders.push(folder)
  const model = await loadModel(folder, { threads: 1, chunkSize: 64 })
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

  it('leaves the keys of earlier chunks as they are, as transformers does', async () => {
    const chunks = [long.slice(0, 8), long.slice(8)]
    const logits = await lastLogits(model, chunks)
    expect(difference(logits, await lastLogits(model, [long]))).toBeGreaterThan(1e-4)
    // ... while the second chunk goes by the whole length, not its own.
    expect(difference(logits, await lastLogits(await load({ rope_theta: theta }), chunks))).toBeGreaterThan(1e-4)
  })
})
