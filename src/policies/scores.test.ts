/** Scores against numbers worked out independently, for fourteen keys and values that a formula gives. */
import { expect, test } from 'vitest'
import type { LayerShape } from '../cache/contract.ts'
import { RowProducts } from '../cache/ranked/products.ts'
import { openReference } from '../kernels/reference.ts'
import { createKvCache } from './index.ts'
import { keyDifferences } from './keydiff.ts'
import { lagRaw } from './lagkv.ts'
import { keyNorm, valueNorm } from './norms.ts'
import { pyramidBudgets } from './pyramidkv.ts'
import { averagePool } from './snapkv.ts'

const D = 4
const vectors = (make: (j: number, c: number) => number) =>
  Float32Array.from({ length: 14 * D }, (_, i) => make(Math.floor(i / D), i % D))
const key = vectors((j, c) => Math.sin(0.9 * (4 * j + c) + 0.3) * (1 + 0.05 * j))
const value = vectors((j, c) => Math.cos(0.7 * (4 * j + c) + 0.1))
const query = vectors((j, c) => Math.cos(0.5 * (4 * j + c) + 0.2))
const tokens = {
  ...{ layer: 0, numTokens: 14, numKvHeads: 1, headDim: D, valueDim: D, key, value, firstPosition: 0 },
}

function expectNear(actual: ArrayLike<number>, expected: readonly number[], tolerance = 2e-6): void {
  expect(actual.length).toBe(expected.length)
  for (const [n, wanted] of expected.entries()) {
    expect(Math.abs((actual[n] as number) - wanted)).toBeLessThanOrEqual(tolerance)
  }
}

const kernels = openReference()
const layer: LayerShape = { numHeads: 1, numKvHeads: 1, headDim: D, valueDim: D }

/** Positions and scores after all fourteen tokens in one chunk. */
function read(options: Parameters<typeof createKvCache>[2]) {
  const cache = createKvCache(kernels, { numLayers: 1, layers: [layer], hasImportance: false }, options)
  cache.layer(0).attend({ query, key, value, numTokens: 14, rotary: null }, new Float32Array(14 * D))
  return cache.explain!()[0]!
}

test('norms of keys and values', () => {
  const scores = new Float32Array(14)
  keyNorm(tokens, scores)
  expectNear(scores, [
    ...[-1.311897, -1.434193, -1.599922, -1.734498, -1.787521, -1.764007, -1.729904],
    ...[-1.775427, -1.929877, -2.125634, -2.265497, -2.295357, -2.236405, -2.183176],
  ])
  valueNorm(tokens, scores)
  expectNear(scores, [
    ...[1.351581, 1.409979, 1.467882, 1.500628, 1.495336, 1.454039, 1.393253],
    ...[1.339587, 1.31912, 1.34251, 1.397611, 1.457825, 1.496986, 1.499507],
  ])
  const { heads } = read({ policy: 'linear', importance: 'key-norm', window: 7 })
  expect(heads[0]!.positions).toEqual([0, 1, 2, 3, 5, 6, 7])
})

test('KeyDiff', () => {
  const shifted = key.map((x) => x + 1)
  expectNear(keyDifferences(new RowProducts(kernels), shifted, D), [
    ...[-0.926713, -0.753098, -0.848579, -0.717981, -0.686578, -0.851692, -0.627323],
    ...[-0.909059, -0.510723, -0.787583, -0.630417, -0.544166, -0.830219, -0.31388],
  ])
})

test('LagKV before ranking', () => {
  const sizes = { headDim: D, valueDim: D }
  expectNear(lagRaw(key, value, sizes, { from: 2, end: 6, next: 10 }), [0.232643, 0.277654, 0.233096, 0.256607])
  expectNear(lagRaw(key, value, sizes, { from: 6, end: 10, next: 14 }), [0.219867, 0.263239, 0.239352, 0.277542])
})

test('LagKV keeps what ranks best within its partition', () => {
  // A window of 12 makes partitions of 2 after four sinks; 14 tokens are 5 of them.
  const { evicted } = read({ policy: 'lagkv', window: 12 })
  expect(evicted.map(({ score }) => score)).toEqual([0, 0])
})

test('H2O adds up columns of the attention matrix', () => {
  const columns = [
    ...[2.964783, 2.537297, 1.649777, 1.169349, 1.266057, 0.994198, 0.876253],
    ...[0.635897, 0.587391, 0.487813, 0.270835, 0.241103, 0.2099, 0.109346],
  ]
  const { heads, evicted } = read({ policy: 'h2o', window: 13, recent: 0 })
  expect(evicted).toEqual([{ head: 0, position: 13, score: expect.closeTo(0.109346, 5), seenTokens: 14 }])
  expectNear(heads[0]!.scores as number[], columns.slice(0, 13), 5e-6)
})

test('TOVA looks at the last row and keeps the last token', () => {
  const row = [
    ...[0.044691, 0.04542, 0.09302, 0.023792, 0.139797, 0.022496, 0.099719],
    ...[0.044826, 0.039854, 0.117178, 0.017949, 0.183575, 0.018337],
  ]
  const { heads } = read({ policy: 'tova', window: 7 })
  expect(heads[0]!.positions).toEqual([1, 2, 4, 6, 9, 11, 13])
  expectNear(
    heads[0]!.scores.slice(0, 6) as number[],
    [1, 2, 4, 6, 9, 11].map((n) => row[n] as number),
  )
})

test('SnapKV pools the attention of the last queries', () => {
  const mean = [
    ...[0.064345, 0.075908, 0.075355, 0.062805, 0.103043],
    ...[0.06208, 0.102357, 0.073893, 0.086256, 0.086161],
  ]
  expectNear(averagePool(Float64Array.from(mean)), [
    ...[0.043122, 0.055683, 0.076291, 0.075838, 0.081128],
    ...[0.080836, 0.085526, 0.082149, 0.069733, 0.049262],
  ])
  const { heads } = read({ policy: 'snapkv', window: 7, recent: 4, interval: 1 })
  expect(heads[0]!.positions).toEqual([4, 6, 7, 10, 11, 12, 13])
})

test('AdaKV gives heads what they need, and each its safeguard', () => {
  const shape = { numLayers: 1, layers: [{ ...layer, numHeads: 2, numKvHeads: 2 }], hasImportance: true }
  const cache = createKvCache(kernels, shape, { policy: 'adakv(linear)', window: 10, storage: 'paged', pageSize: 4 })
  const importance = Float32Array.from({ length: 40 * 2 }, (_, i) => (i % 2 ? 100 : 0) + Math.floor(i / 2))
  const zeros = new Float32Array(40 * 2 * D)
  cache.layer(0).attend({ query: zeros, key: zeros, value: zeros, importance, numTokens: 40 }, zeros.slice())
  expect([0, 1].map((head) => cache.layer(0).positions(head).length)).toEqual([2, 18])
  // 2 rows are one page, 18 are five: memory follows, where heads of 10 would take three pages each.
  expect(cache.getCacheInfo().bytes).toBe((1 + 5) * 4 * 2 * D * 4 + 20 * 4)
})

test('PyramidKV', () => {
  const budgets = (length: number, removed: number, numLayers = 32) =>
    pyramidBudgets({ budget: length * (1 - removed), numLayers, least: 64, length })
  const ends = (list: readonly number[]) => [...list.slice(0, 3), ...list.slice(-2)]
  const sum = (list: readonly number[]) => list.reduce((a, b) => a + b, 0)
  expect(ends(budgets(4096, 0.25))).toEqual([4032, 3970, 3908, 2174, 2112])
  expect(ends(budgets(4096, 0.5))).toEqual([3994, 3868, 3743, 228, 102])
  expect(ends(budgets(8192, 0.5))).toEqual([7987, 7736, 7485, 456, 205])
  expect(sum(budgets(4096, 0.5))).toBe(65536)
  expect(sum(budgets(8192, 0.5))).toBe(131072)
  expect(ends(budgets(32768, 0.9, 36)).slice(-2)).toEqual([342, 164])
  expect(new Set(budgets(1000, 0.9))).toEqual(new Set([100]))
  for (const budget of [100, 101, 1301])
    expect(sum(pyramidBudgets({ budget, numLayers: 7, least: 1 }))).toBe(7 * budget)
})

test('expected attention follows the statistics of the queries', () => {
  // Queries after the first four all point to the first axis: keys with a large first component are expected.
  const queries = vectors((_, c) => (c === 0 ? 8 : 0))
  const shape = { numLayers: 1, layers: [layer], hasImportance: false }
  const cache = createKvCache(kernels, shape, { policy: 'expected-attention', window: 6, sinks: 1, interval: 1 })
  const ones = vectors(() => 1)
  cache.layer(0).attend({ query: queries, key, value: ones, numTokens: 14, rotary: null }, new Float32Array(14 * D))
  const firsts = Array.from({ length: 14 }, (_, j) => ({ j, first: key[j * D] as number })).slice(1)
  const best = firsts.sort((a, b) => b.first - a.first).slice(0, 5)
  expect(cache.layer(0).positions(0)).toEqual([0, ...best.map(({ j }) => j).sort((a, b) => a - b)])
})

test('random is the same for one seed and another for another', () => {
  const kept = (seed: number) => read({ policy: 'random', window: 5, seed }).heads[0]!.positions
  expect(kept(1)).toEqual(kept(1))
  expect([2, 3, 4, 5].some((seed) => `${kept(seed)}` !== `${kept(1)}`)).toBe(true)
})
