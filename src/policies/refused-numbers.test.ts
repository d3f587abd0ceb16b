/** Numbers that nothing can be ranked by: refused with a message, and the cache goes on as though they had never come. */
import { expect, test } from 'vitest'
import type { CacheOptions, KvCache, LayerInput } from '../cache/contract.ts'
import { smallRotary as rotary, smallLayer as shape } from '../cache/testing/small-layer.ts'
import { createRandom, normal } from '../kernels/cases.ts'
import { openKernels } from '../kernels/index.ts'
import { createKvCache } from './index.ts'

const kernels = openKernels({ threads: 1 })
const { numHeads: H, numKvHeads: K, headDim: D, valueDim: E } = shape
const window = 12

const ranking: CacheOptions[] = [
  ...(['h2o', 'tova', 'snapkv', 'keydiff', 'lagkv', 'expected-attention', 'adakv'] as const).map((policy) => ({
    ...{ policy, window },
  })),
  { policy: 'linear', window, leastWindow: 4 },
]
const finite = ['f32', 'bf16', 'int8', 'int4'] as const
const bad = [
  ...finite.flatMap((kvDtype) => ['query', 'key', 'value'].map((name) => ({ kvDtype, name, value: Number.NaN }))),
  ...['key', 'value'].map((name) => ({ kvDtype: 'f16' as const, name, value: -65600 })),
  { kvDtype: 'int4' as const, name: 'key', value: 30000 }, // its copy in f16 would be transformed
  { kvDtype: 'f32' as const, name: 'query', value: 1e38 },
  { kvDtype: 'f32' as const, name: 'key', value: Number.POSITIVE_INFINITY },
]

test.each(ranking)('%j', (choice) => {
  for (const { kvDtype, name, value } of bad) {
    for (const numTokens of [1, 7]) {
      const input = newTokens(createRandom(3), numTokens)
      ;(input[name as 'key'] as Float32Array)[(numTokens - 1) * D + 1] = value
      expectRefused({ ...choice, kvDtype }, input, `in ${name}, since this policy ranks by what comes, got`)
    }
  }
})

test('scores of one, of tokens that are taken one by one', () => {
  const input = newTokens(createRandom(3), 5)
  input.value.fill(Number.NaN, 4 * K * E)
  const own: CacheOptions = { policy: 'linear', importance: 'value-norm', window }
  for (const choice of [own, { ...own, policy: 'adakv(linear)' as const }]) {
    for (const rest of [{}, { recall: 1 }, { positions: 'rank' as const }]) {
      expectRefused({ ...choice, ...rest }, input, 'expected scores without NaN')
    }
  }
})

test('large numbers that can be stored are none of those', () => {
  const cache = createKvCache(kernels, model, { policy: 'h2o', window, kvDtype: 'f16' })
  const input = newTokens(createRandom(3), 40)
  input.key[1] = 65000
  attend(cache, input)
  expect(cache.getCacheInfo().seenTokens).toBe(40)
})

const model = { numLayers: 1, layers: [shape], hasImportance: true }

function newTokens(random: () => number, numTokens: number): LayerInput {
  const rows = (size: number): Float32Array => normal(random, numTokens * size)
  return { numTokens, query: rows(H * D), key: rows(K * D), value: rows(K * E), importance: rows(K), rotary }
}

function attend(cache: KvCache, input: LayerInput): Float32Array {
  const output = new Float32Array(input.numTokens * H * E)
  cache.layer(0).attend(input, output)
  return output
}

function expectRefused(options: CacheOptions, input: LayerInput, message: string): void {
  const random = createRandom(1)
  const [cache, other] = [createKvCache(kernels, model, options), createKvCache(kernels, model, options)]
  const before = newTokens(random, 20)
  for (const one of [cache, other]) attend(one, before)
  expect(() => attend(cache, input)).toThrow(message)
  for (let step = 0; step < 20; step++) {
    const next = newTokens(random, 1)
    expect(attend(cache, next)).toEqual(attend(other, next))
  }
  expect(cache.explain?.()).toEqual(other.explain?.())
  for (const one of [cache, other]) one.dispose()
}
