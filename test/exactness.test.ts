/** The promise of the linear cache, on the bundled model: in constant memory, the same text as with all of it. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createDocument } from '../eval/document.ts'
import type { CacheOptions, CausalLM, KvCache } from '../src/index.ts'
import { loadModel } from '../src/index.ts'

const folder = new URL('../models/kvasir-tiny/', import.meta.url).pathname
const window = 128
const linear: CacheOptions = { policy: 'linear', window }
const masked: CacheOptions = { policy: 'full', window }

let model: CausalLM
beforeAll(async () => {
  model = await loadModel(folder, { worker: false }) // it looks into the layers of caches
})
afterAll(() => model.dispose())

function storyTokens(seed: number, count: number): number[] {
  const { tokens } = createDocument(model.tokenizer, { tokens: count, facts: 8, seed })
  return Array.from(tokens).slice(0, count)
}

async function logitsAfter(entries: readonly { cache: KvCache; tokens: readonly number[] }[]): Promise<Float32Array[]> {
  const { data } = await model.forward(entries)
  return entries.map((_, i) => (data as Float32Array).slice(i * model.vocabSize, (i + 1) * model.vocabSize))
}

const argmax = (logits: Float32Array) => logits.indexOf(Math.max(...logits))

describe('the linear cache on kvasir-tiny', () => {
  it('generates 5,000 tokens as a full cache with the same top-W mask does', { timeout: 300_000 }, async () => {
    for (const seed of [1, 2, 3, 4, 5]) {
      const story = storyTokens(seed, 700)
      const caches = [model.createCache(linear), model.createCache(masked)]
      let logits = await logitsAfter(caches.map((cache) => ({ cache, tokens: story })))
      const texts: [number[], number[]] = [[], []]
      for (let n = 0; n < 1000; n++) {
        texts[0].push(argmax(logits[0]!))
        texts[1].push(argmax(logits[1]!))
        // A greedy text soon runs in circles; every tenth token comes from another story to keep it going.
        const forced = n % 10 === 9 ? story[(n * 7) % story.length]! : undefined
        logits = await logitsAfter(caches.map((cache, i) => ({ cache, tokens: [forced ?? texts[i]!.at(-1)!] })))
      }
      expect(texts[0]).toEqual(texts[1])
      expect(caches[0]!.getCacheInfo()).toMatchObject({ keptTokens: window, seenTokens: 1700 })
      expect(caches[1]!.getCacheInfo()).toMatchObject({ keptTokens: 1700 })
      for (const cache of caches) cache.dispose()
    }
  })

  it('reads a text in chunks of any size to the same kept sets and logits', async () => {
    const story = storyTokens(9, 600)
    const read = async (chunkSize: number) => {
      const cache = model.createCache(linear)
      let logits: Float32Array | undefined
      for (let from = 0; from < story.length; from += chunkSize) {
        ;[logits] = await logitsAfter([{ cache, tokens: story.slice(from, from + chunkSize) }])
      }
      const { layers, numLayers } = model.shape
      const { numKvHeads } = layers[0]!
      const kept = Array.from({ length: numLayers * numKvHeads }, (_, i) => {
        return cache.layer(Math.floor(i / numKvHeads)).positions(i % numKvHeads)
      })
      cache.dispose()
      return { logits: logits!, kept }
    }
    const single = await read(1)
    for (const chunkSize of [2, 37, 128, 129, 512, 600]) {
      const { logits, kept } = await read(chunkSize)
      expect(kept).toEqual(single.kept)
      const worst = Math.max(...logits.map((value, i) => Math.abs(value - single.logits[i]!)))
      expect(worst).toBeLessThanOrEqual(2e-3)
    }
  })

  it('takes the same bytes after 1,000 and after 20,000 tokens', { timeout: 120_000 }, async () => {
    const cache = model.createCache(linear)
    const story = storyTokens(3, 20_000)
    await model.prefill(cache, story.slice(0, 1000))
    const { bytes } = cache.getCacheInfo()
    await model.prefill(cache, story.slice(1000))
    expect(cache.getCacheInfo()).toMatchObject({ bytes, keptTokens: window, seenTokens: 20_000 })
    cache.dispose()
  })
})
