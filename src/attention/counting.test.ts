import fc from 'fast-check'
import { expect, test } from 'vitest'
import { LinearKVCache } from '../cache/index.ts'
import { openKernels } from '../kernels/index.ts'
import { KvasirError } from '../tensor/error.ts'
import {
  attentionBytes,
  attentionFlops,
  attentionPairs,
  type CountedKvDtype,
  countedKvDtypes,
  type KvCacheBytesOptions,
  kvCacheBytes,
} from './index.ts'

test('512 tokens, D = 64, E = 128: a step without a cache and with one', () => {
  const head = { numKeys: 512, numHeads: 1, headDim: 64, valueDim: 128 }
  const without = attentionFlops({ ...head, numTokens: 512 })
  expect(without.scores.multiplications).toBe(16_777_216)
  expect(without.outputs.multiplications).toBe(33_554_432)
  expect(without.total).toEqual({ multiplications: 50_331_648, flops: 100_663_296 })
  const cached = attentionFlops({ ...head, numTokens: 1 })
  expect(cached.scores).toEqual({ multiplications: 32_768, flops: 65_536 })
  expect(cached.outputs).toEqual({ multiplications: 65_536, flops: 131_072 })
})

test('causal work is about half of the dense work, and the dense work is told beside it', () => {
  const shape = { numTokens: 2048, numKeys: 2048, numHeads: 32, headDim: 128 }
  const { total, dense, usefulShare } = attentionFlops({ ...shape, causal: true })
  expect(dense.total).toEqual(attentionFlops(shape).total)
  expect(dense.total.flops).toBe(4 * 32 * 2048 * 2048 * 128)
  expect(total.flops).toBe(4 * 32 * ((2048 * 2049) / 2) * 128)
  expect(usefulShare).toBe(2049 / 4096)
  expect(attentionFlops({ ...shape, numTokens: 0 })).toMatchObject({ total: { flops: 0 }, usefulShare: 1 })
})

/** What the formula says in a moment, counted pair by pair. */
function countPairs(T: number, S: number, causal: boolean, window: number | undefined): number {
  let pairs = 0
  for (let t = 0; t < T; t++) {
    let seen = 0
    for (let s = 0; s < S; s++) if (!causal || s <= t + S - T) seen++
    pairs += Math.min(seen, window ?? seen)
  }
  return pairs
}

test('pairs are those that counting one by one finds', () => {
  const size = fc.integer({ min: 0, max: 24 })
  const window = fc.option(fc.integer({ min: 1, max: 30 }), { nil: undefined })
  fc.assert(
    fc.property(size, size, fc.boolean(), window, (numTokens, numKeys, causal, window) => {
      const expected = countPairs(numTokens, numKeys, causal, window)
      expect(attentionPairs({ numTokens, numKeys, causal, window })).toBe(expected)
    }),
    { numRuns: 2000 },
  )
})

/** Of public config.json files: layers, KV heads, head dim, and the bytes a token in f16. */
const models: readonly (readonly [name: string, layers: number, kvHeads: number, headDim: number, bytes: number])[] = [
  ['Llama-3.1-8B', 32, 8, 128, 128 * 1024],
  ['Mistral-7B', 32, 8, 128, 128 * 1024],
  ['Llama-2-7B', 32, 32, 128, 512 * 1024],
  ['Qwen2.5-7B', 28, 4, 128, 56 * 1024],
  ['Gemma-2-9B', 42, 8, 256, 336 * 1024],
  ['GPT-2', 12, 12, 64, 36 * 1024],
  ['Llama-3.2-1B', 16, 8, 64, 32 * 1024],
]

test.each(models)('%s: bytes a token', (_, numLayers, numKvHeads, headDim, bytes) => {
  const shape = { numLayers, numKvHeads, headDim, numTokens: 1000 }
  expect(kvCacheBytes({ ...shape, dtype: 'f16' })).toEqual({
    ...{ bytesPerToken: bytes, bytes: 1000 * bytes, fullBytes: 1000 * bytes },
  })
  expect(kvCacheBytes(shape).bytesPerToken).toBe(2 * bytes)
})

const llama: KvCacheBytesOptions = { numLayers: 32, numKvHeads: 8, headDim: 128, numTokens: 8192 }

test('every type: numbers and scales', () => {
  const vector = { f32: 512, f16: 256, bf16: 256, int8: 132, 'fp8-e4m3': 132, 'fp8-e5m2': 132, int4: 64 + 4 }
  expect(Object.keys(vector)).toEqual(countedKvDtypes)
  for (const dtype of countedKvDtypes) {
    expect(kvCacheBytes({ ...llama, dtype }).bytesPerToken, dtype).toBe(32 * 8 * 2 * vector[dtype])
  }
  const odd = { numLayers: 1, numKvHeads: 1, headDim: 33, valueDim: 7, numTokens: 1 }
  // Codes go up to a multiple of four bytes; the newest tokens have a copy in f16.
  expect(kvCacheBytes({ ...odd, dtype: 'int4' }).bytes).toBe(20 + 4 + 4 + 4 + 2 * (33 + 7))
  expect(kvCacheBytes({ ...odd, dtype: 'int4', residual: 0 }).bytes).toBe(20 + 4 + 4 + 4)
  expect(kvCacheBytes({ ...odd, dtype: 'int8' }).bytes).toBe(36 + 4 + 8 + 4)
  const copies = (tokens: number) => 32 * 8 * tokens * 2 * (128 + 128)
  const rows = (tokens: number) => tokens * 32 * 8 * 2 * 68
  const int4 = { ...llama, dtype: 'int4', batch: 2 } as const
  expect(kvCacheBytes({ ...int4, window: 600 })).toMatchObject({
    bytes: 2 * (rows(600) + copies(128)),
    fullBytes: 2 * (rows(8192) + copies(128)),
  })
  // Of a window unasked at most a quarter.
  expect(kvCacheBytes({ ...int4, window: 90 })).toMatchObject({
    bytes: 2 * (rows(90) + copies(23)),
    fullBytes: 2 * (rows(8192) + copies(23)),
  })
  expect(kvCacheBytes({ ...int4, window: 90, residual: 100 }).bytes).toBe(2 * (rows(90) + copies(90)))
})

test('windows bound what is kept, in all layers and by layer', () => {
  const perToken = kvCacheBytes(llama).bytesPerToken
  const bytes = (more: Partial<KvCacheBytesOptions>) => kvCacheBytes({ ...llama, ...more }).bytes
  expect(bytes({ window: 1024, batch: 3 })).toBe(3 * 1024 * perToken)
  expect(bytes({ window: 9000 })).toBe(8192 * perToken)
  const layerWindows = Array.from({ length: 32 }, (_, layer) => (layer % 2 ? null : 4096))
  expect(bytes({ layerWindows })).toBe((16 * (8192 + 4096) * perToken) / 32)
  expect(bytes({ layerWindows, window: 5000 })).toBe((16 * (5000 + 4096) * perToken) / 32)
  expect(kvCacheBytes({ ...llama, window: 1, batch: 2 }).fullBytes).toBe(2 * 8192 * perToken)
})

test.each(['f32', 'f16', 'int8', 'fp8-e5m2', 'int4'] as const)(
  'a linear cache in %s has the bytes that are counted',
  (dtype) => {
    const shape = { numKvHeads: 2, headDim: 48 }
    const kernels = openKernels({ backend: 'reference' })
    const cache = new LinearKVCache({ ...shape, keepWindowSize: 8, numHeads: 4, dtype, batchSize: 3, kernels })
    const tokens = { numTokens: 20, importance: new Float32Array(3 * 20 * 2) }
    cache.update({ ...tokens, key: new Float32Array(3 * 20 * 96), value: new Float32Array(3 * 20 * 96) })
    const { bytes, fullBytes } = cache.getCacheInfo()
    const options = { ...shape, dtype, numLayers: 1, numTokens: 20, window: 8, batch: 3, hasImportance: true }
    expect(kvCacheBytes(options)).toMatchObject({ bytes, fullBytes })
    cache.dispose()
  },
)

test('a decode step reads the cache once, and queries and outputs beside it', () => {
  const step = attentionBytes({ ...llama, numHeads: 32, valueDim: 64, dtype: 'f16', batch: 2, window: 100 })
  const cache = kvCacheBytes({ ...llama, valueDim: 64, dtype: 'f16', batch: 2, window: 100 }).bytes
  expect(step).toEqual({
    cache,
    queries: 2 * 32 * 32 * 128 * 4,
    outputs: 2 * 32 * 32 * 64 * 4,
    total: cache + 2 * 32 * 32 * 192 * 4,
  })
})

test('counts from 2^53 on are refused instead of rounded', () => {
  const head = { numHeads: 1, headDim: 1 }
  const below = { ...head, numTokens: 2 ** 25, numKeys: 2 ** 25 }
  expect(attentionFlops(below).total.flops).toBe(2 ** 52)
  expect(() => attentionFlops({ ...below, numHeads: 2 })).toThrow(
    'expected sizes that give less than 2^53 for FLOPs (total), got 9.01e+15',
  )
  expect(attentionPairs({ numTokens: 2 ** 27 - 4, numKeys: 2 ** 26, causal: true })).toBe((2 ** 26 * (2 ** 26 + 1)) / 2)
  expect(() => attentionPairs({ numTokens: 2 ** 28, numKeys: 2 ** 28, causal: true })).toThrow('for pairs')
  expect(() => kvCacheBytes({ ...llama, numTokens: 2 ** 36 })).toThrow('2^53 for bytes, got 1.80e+16')
})

const flops = { numTokens: 1, numKeys: 1, numHeads: 1, headDim: 1 }
const refused: readonly (readonly [run: () => unknown, message: string])[] = [
  [() => attentionFlops({ ...flops, headDim: 0 }), 'expected an integer of at least 1 for headDim, got 0'],
  [() => attentionFlops({ ...flops, numTokens: -1 }), 'for numTokens, got -1'],
  [() => attentionFlops({ ...flops, numKeys: Number.NaN }), 'for numKeys, got NaN'],
  [() => attentionFlops({ ...flops, window: 0 }), 'expected an integer of at least 1 for window, got 0'],
  [() => attentionFlops({ ...flops, causal: 1 as never }), 'expected true or false for causal, got 1'],
  [() => attentionFlops({ ...flops, isCausal: true } as never), 'unknown option "isCausal" for attentionFlops'],
  [() => attentionPairs({ numTokens: 1, numKeys: 1, windw: 2 } as never), 'did you mean "window"?'],
  [() => kvCacheBytes({ ...llama, dtype: 'fp16' as CountedKvDtype }), 'got "fp16" (did you mean "f16"?)'],
  [() => kvCacheBytes({ ...llama, numKvHeads: 1.5 }), 'for numKvHeads, got 1.5'],
  [() => kvCacheBytes({ ...llama, batch: 0 }), 'for batch, got 0'],
  [() => kvCacheBytes({ ...llama, hasImportance: 1 as never }), 'true or false for hasImportance, got 1'],
  [() => kvCacheBytes({ ...llama, window: 0 }), 'for window, got 0'],
  [() => kvCacheBytes({ ...llama, layerWindows: [4096] }), 'expected 32 entries for layerWindows, one a layer'],
  [() => kvCacheBytes({ ...llama, numLayers: 1, layerWindows: [0] }), 'for layerWindows[0], got 0'],
  [() => attentionBytes({ ...llama, numHeads: 12 }), 'expected 12 query heads to be a multiple of 8 KV heads'],
  [() => attentionBytes({ ...llama, numHeads: 8, heads: 8 } as never), 'unknown option "heads" for attentionBytes'],
  [() => attentionBytes({ ...llama } as never), 'for numHeads, got undefined'],
]

test.each(refused)('wrong arguments are refused: %#', (run, message) => {
  expect(run).toThrow(KvasirError)
  expect(run).toThrow(message)
})
