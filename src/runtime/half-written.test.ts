/** Caches whose layers differ, since a forward pass failed between them. */
import { rm } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { KvCache, LayerCache } from '../cache/contract.ts'
import { type DogeCheckpoint, writeDogeCheckpoint } from '../onnx/testing/doge-checkpoint.ts'
import type { CausalLM } from './contract.ts'
import { loadModel } from './load-model.ts'

let checkpoint: DogeCheckpoint
let model: CausalLM
beforeAll(async () => {
  checkpoint = await writeDogeCheckpoint()
  model = await loadModel(checkpoint.folder, { threads: 1 })
})
afterAll(async () => {
  await model.dispose()
  await rm(checkpoint.folder, { recursive: true })
})

/** A cache whose layer 1 fails the next time. */
function failingOnce(cache: KvCache): KvCache {
  let fails = 1
  return {
    numLayers: cache.numLayers,
    get seenTokens() {
      return cache.seenTokens
    },
    layer(index: number): LayerCache {
      const layer = cache.layer(index)
      const attend: LayerCache['attend'] = (input, output) => {
        if (index === 1 && fails-- > 0) throw new Error('out of luck')
        layer.attend(input, output)
      }
      return Object.assign(Object.create(layer) as LayerCache, { attend, info: () => layer.info() })
    },
    reset: () => cache.reset(),
  } as unknown as KvCache
}

describe('a loaded model', () => {
  it('refuses a cache that a failed call left half written, until it is reset', async () => {
    const cache = failingOnce(model.createCache())
    const entry = { cache, tokens: [1, 2, 3] }
    await expect(model.forward([entry])).rejects.toThrow('out of luck')
    await expect(model.forward([entry])).rejects.toThrow('half written; reset it')
    cache.reset()
    const { data } = await model.forward([entry])
    const expected = await model.forward([{ cache: model.createCache(), tokens: [1, 2, 3] }])
    expect(data).toEqual(expected.data)
  })

  it('refuses an importance that is NaN, and the cache that it left half written', async () => {
    const broken = await writeDogeCheckpoint({
      change: (tensors) => tensors.get('model.layers.1.self_attn.A')!.values.fill(Number.NaN),
    })
    const other = await loadModel(broken.folder, { threads: 1 })
    const cache = other.createCache()
    await expect(other.forward([{ cache, tokens: [1] }])).rejects.toThrow('NaN')
    await expect(other.forward([{ cache, tokens: [1] }])).rejects.toThrow('half written')
    await expect(other.forward([{ cache: cache.fork(), tokens: [1] }])).rejects.toThrow('half written')
    await expect(other.generate([1])).rejects.toThrow('NaN')
    await other.dispose()
    await rm(broken.folder, { recursive: true })
  })
})
