/** Bytes, pages and windows: what a cache may take, what it takes, and what happens when there is no more. */
import { describe, expect, test } from 'vitest'
import type { CacheOptions, CacheShape, KvCache, LayerRotary, LayerShape } from '../cache/contract.ts'
import { smallRotary } from '../cache/testing/small-layer.ts'
import { openKernels } from '../kernels/index.ts'
import { createKvCache, createKvPool, presets } from './index.ts'

const kernels = openKernels({ threads: 1 })
const layer: LayerShape = { numHeads: 4, numKvHeads: 2, headDim: 16, valueDim: 12 }
const shape: CacheShape = { numLayers: 2, layers: [layer, { ...layer, window: 10 }], hasImportance: false }
const { numHeads: H, numKvHeads: K, headDim: D, valueDim: E } = layer

let state = 1
const numbers = (length: number) =>
  Float32Array.from({ length }, () => {
    state = (state * 16807) % 2147483647
    return state / 1073741824 - 1
  })

function feed(cache: KvCache, numTokens: number, rotary?: LayerRotary): Float32Array {
  let output = new Float32Array(0)
  for (let index = 0; index < cache.numLayers; index++) {
    output = new Float32Array(numTokens * H * E)
    const sizes = {
      query: numbers(numTokens * H * D),
      key: numbers(numTokens * K * D),
      value: numbers(numTokens * K * E),
    }
    cache.layer(index).attend({ ...sizes, numTokens, rotary }, output)
  }
  return output
}

const bounded = ['streaming', 'h2o', 'snapkv', 'keydiff', 'lagkv', 'adakv', 'pyramidkv', 'random'] as const

describe.each(bounded)('%s', (policy) => {
  test.each(['contiguous', 'paged'] as const)('never takes more than kvBudget: %s', (storage) => {
    // Side by side, heads that share a budget would all take what the longest takes.
    if (policy === 'adakv' && storage === 'contiguous') return
    for (const kvDtype of ['f32', 'bf16'] as const) {
      const kvBudget = 30_000
      const cache = createKvCache(kernels, shape, { policy, kvBudget, storage, kvDtype })
      for (const numTokens of [200, 1, 1, 50, ...new Array<number>(60).fill(1)]) {
        feed(cache, numTokens)
        expect(cache.getCacheInfo().bytes).toBeLessThanOrEqual(kvBudget)
      }
      // and makes use of it
      expect(cache.getCacheInfo().bytes).toBeGreaterThan(0.6 * kvBudget)
      cache.dispose()
    }
  })
})

test('a layer with a window of its own keeps no more than that', () => {
  const cache = createKvCache(kernels, shape, { policy: 'h2o', window: 50 })
  feed(cache, 200)
  expect(cache.layer(1).positions(0)).toEqual([190, 191, 192, 193, 194, 195, 196, 197, 198, 199])
})

test('a budget that nothing fits is refused with what would', () => {
  const make = () => createKvCache(kernels, shape, { policy: 'streaming', kvBudget: 100 })
  expect(make).toThrow(/at least 448 bytes/)
  expect(() => createKvCache(kernels, shape, { policy: 'full', kvBudget: 1e6 })).toThrow(/kvBudget means nothing/)
})

test('sequences of any length share pages with less than 4 % of waste', () => {
  const pool = createKvPool(kernels, { kvDtype: 'f16' })
  const full = { ...shape, layers: [layer, layer] }
  const lengths = [37, 1200, 450, 903, 2048, 610, 777, 1500, 333, 128, 999, 260]
  const caches = lengths.map((length) => {
    const cache = createKvCache(kernels, full, { policy: 'full', pool, kvDtype: 'f16' })
    feed(cache, length)
    return cache
  })
  const used = lengths.reduce((a, b) => a + b, 0) * 2 * K * (D + E) * 2
  expect(1 - used / pool.usedBytes).toBeLessThan(0.04)
  pool.checkIntegrity()
  for (const cache of caches) cache.dispose()
  pool.checkIntegrity()
  expect(pool.usedBytes).toBe(0)
})

test('forks share pages until they write', () => {
  const pool = createKvPool(kernels)
  const cache = createKvCache(kernels, shape, { policy: 'full', pool })
  feed(cache, 100)
  const before = pool.usedBytes
  const forks = Array.from({ length: 5 }, () => cache.fork())
  expect(pool.usedBytes).toBe(before)
  for (const fork of forks) feed(fork, 1)
  pool.checkIntegrity()
  // One page of each head and layer for each fork: 100 tokens end within a page.
  const page = 16 * (D + E) * 4
  expect(pool.usedBytes).toBe(before + 5 * 2 * K * page)
  for (const fork of forks) fork.dispose()
  expect(pool.usedBytes).toBe(before)
})

test('a pool that is used up refuses a call and changes nothing', () => {
  const page = 16 * (D + E) * 4
  const pool = createKvPool(kernels, { kvBudget: 2 * K * 3 * page })
  const one = { ...shape, numLayers: 1, layers: [layer] }
  const cache = createKvCache(kernels, one, { policy: 'full', pool })
  const other = createKvCache(kernels, one, { policy: 'streaming', window: 20, pool })
  feed(cache, 60)
  feed(other, 20)
  const [info, positions] = [cache.getCacheInfo(), other.layer(0).positions(1)]
  expect(() => feed(cache, 40)).toThrow(/out of memory|room for/)
  expect(cache.getCacheInfo()).toEqual(info)
  pool.checkIntegrity()
  feed(other, 1)
  expect(other.layer(0).positions(1).length).toBe(positions.length)
  other.dispose()
  feed(cache, 30)
  pool.checkIntegrity()
})

test('the window shrinks where little is attended to, and grows where much is', () => {
  const one = { numLayers: 1, layers: [layer], hasImportance: false }
  const cache = createKvCache(kernels, one, { policy: 'snapkv', window: 64, leastWindow: 8, keepMass: 0.9 })
  const step = (sharp: boolean) => {
    const key = numbers(K * D)
    // Sharp queries see the first token alone; blunt ones see all alike.
    if (cache.seenTokens === 0) key.fill(6)
    const query = new Float32Array(H * D).fill(sharp ? 6 : 0)
    cache.layer(0).attend({ query, key, value: numbers(K * E), numTokens: 1 }, new Float32Array(H * E))
    return cache.layer(0).positions(0).length
  }
  const sharp = Array.from({ length: 300 }, () => step(true)).slice(200)
  const blunt = Array.from({ length: 300 }, () => step(false)).slice(200)
  expect(Math.max(...sharp)).toBeLessThan(40)
  expect(Math.min(...blunt)).toBeGreaterThan(40)
  expect(Math.max(...blunt)).toBeLessThanOrEqual(64)
})

test('streaming by rank never ends: distances stay within the window', () => {
  const one = { numLayers: 1, layers: [layer], hasImportance: false }
  let furthest = 0
  const rotary: LayerRotary = {
    pairs: 8,
    isInterleaved: false,
    fill(positions, _length, cos, sin) {
      for (let t = 0; t < positions.length; t++) {
        furthest = Math.max(furthest, positions[t] as number)
        for (let i = 0; i < 8; i++) {
          cos[t * 8 + i] = Math.cos((positions[t] as number) / 10 ** (i / 2))
          sin[t * 8 + i] = Math.sin((positions[t] as number) / 10 ** (i / 2))
        }
      }
    },
  }
  const cache = createKvCache(kernels, one, { policy: 'streaming', window: 32, positions: 'rank', kvDtype: 'f16' })
  feed(cache, 1000, rotary)
  for (let n = 0; n < 3000; n++) expect(feed(cache, 1, rotary).every(Number.isFinite)).toBe(true)
  expect(cache.layer(0).positions(0).slice(0, 5)).toEqual([0, 1, 2, 3, 3972])
  expect(furthest).toBeLessThanOrEqual(3 * 32)
})

test.each<CacheOptions>([
  { policy: 'snapkv', window: 12, leastWindow: 2, keepMass: 0.1 },
  { policy: 'linear', importance: 'value-norm', window: 10, leastWindow: 1, keepMass: 0.2 },
])('by rank more queries may be looked back at than rows are kept: %j', (options) => {
  const one = { numLayers: 1, layers: [layer], hasImportance: false }
  const cache = createKvCache(kernels, one, { ...options, positions: 'rank' })
  for (let n = 0; n < 200; n++) expect(feed(cache, 1 + (n % 3), smallRotary).every(Number.isFinite)).toBe(true)
  expect(cache.getCacheInfo().keptTokens).toBeLessThanOrEqual(12)
})

test('by rank a cache may come to hold nothing', () => {
  const one = { numLayers: 1, layers: [{ ...layer, numHeads: 1, numKvHeads: 1 }], hasImportance: true }
  const cache = createKvCache(kernels, one, { policy: 'linear', window: 4, positions: 'rank' })
  const hidden = { importance: Float32Array.of(Number.NEGATIVE_INFINITY), numTokens: 1, rotary: smallRotary }
  const output = new Float32Array(E)
  for (let n = 0; n < 40; n++) {
    cache.layer(0).attend({ ...hidden, query: numbers(D), key: numbers(D), value: numbers(E) }, output)
    expect(output).toEqual(new Float32Array(E))
  }
})

test('queries and keys that were rotated already are refused by rank', () => {
  const cache = createKvCache(kernels, shape, { policy: 'streaming', window: 32, positions: 'rank' })
  expect(() => feed(cache, 1)).toThrow(/unrotated/)
  expect(cache.seenTokens).toBe(0)
})

describe('options', () => {
  test.each<[Record<string, unknown>, RegExp]>([
    [{ policy: 'snapkv' }, /kvBudget/],
    [{ policy: 'window', window: 8, recall: 1, recallBytes: 5 }, /recallBytes of at least \d{4}, what a page of 16/],
    [{ policy: 'full', kvDtype: 'int4', residual: 65537 }, /in 0\.\.65536 for residual, got 65537/],
    [{ policy: 'window', kvBudget: 9 }, /kvBudget of at least \d+ bytes for 1 token, got 9/],
    [{ policy: 'adakv(full)' }, /budget to share/],
    [{ policy: 'adakv(adakv(h2o))' }, /once/],
    [{ policy: 'h2o(snapkv)', window: 9 }, /adakv/],
    [{ policy: 'adakv(keydif)', window: 9 }, /did you mean "keydiff"/],
    [{ policy: 'full', window: 8, positions: 'rank' }, /keeps all/],
    [{ policy: 'h2o', window: 9, keepMass: 0.5 }, /leastWindow/],
    [{ policy: 'h2o', window: 9, leastWindow: 10 }, /leastWindow/],
    [{ policy: 'adakv', window: 9, leastWindow: 3 }, /both/],
    [{ policy: 'adakv', kvBudget: 1e6, storage: 'contiguous' }, /paged/],
    [{ policy: 'h2o', window: 9, pool: {} }, /createKvPool/],
    [{ policy: 'h2o', window: 9, storage: 'page' }, /did you mean "paged"/],
    [{ policy: 'linear', window: 9, importance: 'norm' }, /value-norm/],
    [{ policy: 'linear', window: 9 }, /value-norm/],
    [{ policy: 'h2o', window: 9, kvBudget: 1.5 }, /kvBudget/],
  ])('refuses %j', (options, message) => {
    expect(() => createKvCache(kernels, shape, options as never)).toThrow(message)
  })

  test.each(Object.entries(presets))('the preset %s is a cache of any bounded policy', (_, preset) => {
    const options: CacheOptions = { ...preset, policy: 'streaming' }
    createKvCache(kernels, shape, options).dispose()
  })
})

test('explain tells what left and when', () => {
  const one = { numLayers: 1, layers: [layer], hasImportance: true }
  const cache = createKvCache(kernels, one, { policy: 'linear', window: 2, evictionLog: 3 })
  const importance = [5, 1, 4, 2, 3, 6].flatMap((score) => [score, 0])
  for (const numTokens of [4, 1, 1]) {
    const from = cache.seenTokens
    const part = Float32Array.from(importance.slice(2 * from, 2 * (from + numTokens)))
    const input = {
      query: numbers(numTokens * H * D),
      key: numbers(numTokens * K * D),
      value: numbers(numTokens * K * E),
    }
    cache.layer(0).attend({ ...input, importance: part, numTokens }, new Float32Array(numTokens * H * E))
  }
  const { heads, evicted } = cache.explain!()[0]!
  expect(heads[0]).toEqual({ positions: [0, 5], scores: [5, 6] })
  expect(heads[1]!.positions).toEqual([4, 5])
  expect(evicted.filter(({ head }) => head === 0)).toEqual([{ head: 0, position: 2, score: 4, seenTokens: 6 }])
  expect(evicted.at(-1)).toEqual({ head: 1, position: 3, score: 0, seenTokens: 6 })
})

test.each<Partial<CacheOptions>>([
  ...[{ policy: 'window' as const }, { policy: 'streaming' as const, recent: 3 }, { policy: 'random' as const }],
  ...[
    { policy: 'linear' as const, sinks: 1 },
    { policy: 'linear' as const, importance: 'value-norm' as const },
  ],
])('what left a chunk is told as though its tokens had come one by one, %o', (options) => {
  const one = { numLayers: 1, layers: [layer], hasImportance: true }
  const [query, key, value] = [numbers(40 * H * D), numbers(40 * K * D), numbers(40 * K * E)]
  const importance = numbers(40 * K).map((score, i) => (i % 7 === 0 ? Number.NEGATIVE_INFINITY : score))
  const told = [[40], [1, 9, 30], new Array<number>(40).fill(1)].map((chunks) => {
    const cache = createKvCache(kernels, one, { policy: 'linear', window: 6, evictionLog: 30, ...options })
    for (const numTokens of chunks) {
      const [from, to] = [cache.seenTokens, cache.seenTokens + numTokens]
      const part = (array: Float32Array, width: number) => array.subarray(from * width, to * width)
      const tokens = { query: part(query, H * D), key: part(key, K * D), value: part(value, K * E), numTokens }
      cache.layer(0).attend({ ...tokens, importance: part(importance, K) }, new Float32Array(numTokens * H * E))
    }
    return cache.explain!()[0]!.evicted
  })
  expect(told[0]).toHaveLength(30)
  expect(new Set(told[0]!.map(({ head }) => head)).size).toBe(K)
  if (options.policy !== 'window' && options.policy !== 'streaming') {
    expect(told[0]!.every(({ score }) => score !== null)).toBe(true)
  }
  expect(told[0]).toEqual(told[2])
  expect(told[1]).toEqual(told[2])
})
