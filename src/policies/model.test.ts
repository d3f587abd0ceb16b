/** Policies and positions under a model: the bundled one, whose queries and keys are rotated. */
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { CacheOptions } from '../cache/contract.ts'
import { type CausalLM, loadModel } from '../runtime/index.ts'
import { policyNames } from './index.ts'

let model: CausalLM
beforeAll(async () => {
  model = await loadModel(fileURLToPath(new URL('../../models/kvasir-tiny', import.meta.url)), {
    threads: 1,
    worker: false,
  })
})
afterAll(() => model.dispose())

const story = 'Mara put the brass key in the blue drawer. The sky was grey over the hills. '

/** Logits of the last token of a text read in one step. */
async function logitsOf(options: CacheOptions, text = story): Promise<Float32Array> {
  const cache = model.createCache(options)
  const tokens = Int32Array.from(model.tokenizer.encode(text))
  const logits = await model.forward([{ cache, tokens }])
  cache.dispose()
  return logits.data as Float32Array
}

test('a cache that rotates by itself gives what rotated queries and keys give', async () => {
  const expected = await logitsOf({ policy: 'window', window: 200 })
  const rotating: CacheOptions[] = [
    { policy: 'window', window: 200, positions: 'rank' },
    { policy: 'h2o', window: 200, positions: 'rank' },
    { policy: 'expected-attention', window: 200 },
  ]
  for (const options of rotating) {
    const actual = await logitsOf(options)
    const worst = actual.reduce((most, value, i) => Math.max(most, Math.abs(value - (expected[i] as number))), 0)
    expect(worst).toBeLessThanOrEqual(1e-3)
  }
})

test('sequences that rotate by themselves and others run in one step', async () => {
  const tokens = Int32Array.from(model.tokenizer.encode(story))
  const caches = (['original', 'rank', 'original'] as const).map((positions) => {
    return model.createCache({ policy: 'window', window: 200, positions })
  })
  const { data } = await model.forward(caches.map((cache) => ({ cache, tokens })))
  const logits = data as Float32Array
  const size = logits.length / 3
  for (let i = 0; i < size; i++) {
    for (const other of [1, 2]) {
      expect(Math.abs((logits[i] as number) - (logits[other * size + i] as number))).toBeLessThanOrEqual(1e-3)
    }
  }
  for (const cache of caches) cache.dispose()
})

test.each(policyNames.filter((name) => name !== 'full'))(
  '%s reads and writes with 48 tokens a head',
  async (policy) => {
    for (const positions of ['original', 'rank'] as const) {
      const cache = model.createCache({ policy, window: 48, positions, storage: 'paged', kvDtype: 'bf16' })
      const { text } = await model.generate(story.repeat(6), { cache, maxNewTokens: 60 })
      expect(text.length).toBeGreaterThan(0)
      const heads = cache.explain!().flatMap((layer) => layer.heads.map((head) => head.positions.length))
      expect(heads.reduce((a, b) => a + b, 0)).toBeLessThanOrEqual(48 * heads.length)
      cache.checkIntegrity!()
      cache.dispose()
    }
  },
)

test('bytes are a knob of the model', async () => {
  const cache = model.createCache({ kvBudget: 200_000 })
  await model.generate(story.repeat(20), { cache, maxNewTokens: 8 })
  const { bytes } = cache.getCacheInfo()
  expect(bytes).toBeLessThanOrEqual(200_000)
  expect(bytes).toBeGreaterThan(190_000)
  cache.dispose()
})
