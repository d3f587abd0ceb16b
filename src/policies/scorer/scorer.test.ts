import { expect, test } from 'vitest'
import type { CacheShape, NewTokens } from '../../cache/contract.ts'
import { createRandom, normal } from '../../kernels/cases.ts'
import { openKernels } from '../../kernels/index.ts'
import { openReference } from '../../kernels/reference.ts'
import { createKvCache } from '../index.ts'
import { countFeatures, readFeatures } from './features.ts'
import { createScorer, type ScorerLayer } from './scorer.ts'

const layer = { numHeads: 2, numKvHeads: 2, headDim: 6, valueDim: 5 }
const shape: CacheShape = { numLayers: 1, layers: [layer], hasImportance: false }
const rotation = { pairs: 2, isInterleaved: false }
const F = countFeatures(layer, rotation)

function draw(numTokens: number, firstPosition: number, seed = 1): NewTokens {
  const random = createRandom(seed)
  const key = normal(random, numTokens * 2 * 6)
  return { ...{ layer: 0, numTokens, ...layer, firstPosition }, key, value: normal(random, numTokens * 2 * 5) }
}

function scorer(hidden: number, slope = 0): ScorerLayer {
  const random = createRandom(7)
  const units = 2 * Math.max(1, hidden)
  const numbers = { weight: normal(random, units * F), bias: normal(random, units), output: normal(random, 2 * hidden) }
  return { rotation, hidden, ...numbers, slope: Float32Array.of(slope, 0) }
}

test('features: value, lengths of rotated pairs, the rest of the key, norms, first tokens', () => {
  const tokens = draw(3, 3)
  const row = new Float32Array(F)
  readFeatures(tokens, 1, 1, rotation, row)
  const [key, value] = [tokens.key.subarray(18, 24), tokens.value.subarray(15, 20)]
  const norm = (numbers: Float32Array) => Math.hypot(...numbers)
  const expected = [
    ...[...value, Math.hypot(key[0]!, key[2]!), Math.hypot(key[1]!, key[3]!), key[4]!, key[5]!],
    ...[Math.log(norm(value)), Math.log(norm(key)), 0, 0, 1],
  ]
  expect(row).toHaveLength(expected.length)
  for (const [n, number] of expected.entries()) expect(row[n]).toBeCloseTo(number, 4)
})

test.each([true, false])('a rotated key has the features of the key (interleaved: %s)', (isInterleaved) => {
  const tokens = draw(4, 100)
  const turned = { ...tokens, key: tokens.key.slice() }
  const angles = Float32Array.from({ length: 8 }, (_, i) => 0.7 * (i + 1))
  const table = { cos: angles.map(Math.cos), sin: angles.map(Math.sin), rotaryPairs: 2, isInterleaved }
  openReference().rotate({ ...table, vectors: turned.key, numTokens: 4, numHeads: 2, headDim: 6 })
  const [one, other] = [new Float32Array(F), new Float32Array(F)]
  for (let t = 0; t < 4; t++) {
    readFeatures(tokens, t, 0, { pairs: 2, isInterleaved }, one)
    readFeatures(turned, t, 0, { pairs: 2, isInterleaved }, other)
    for (const [n, number] of one.entries()) expect(other[n]).toBeCloseTo(number, 4)
  }
  expect(turned.key[0]).not.toBeCloseTo(tokens.key[0]!, 2)
})

test.each([0, 3])('a score of %i hidden units is what loops give, plus a slope over positions', (hidden) => {
  const own = scorer(hidden, 0.25)
  const tokens = draw(5, 40)
  const scores = new Float32Array(10)
  createScorer([own], shape)(tokens, scores)
  const row = new Float32Array(F)
  for (let t = 0; t < 5; t++) {
    for (let k = 0; k < 2; k++) {
      readFeatures(tokens, t, k, rotation, row)
      const unit = (n: number) => row.reduce((sum, x, f) => sum + x * own.weight[n * F + f]!, own.bias[n]!)
      let expected = hidden === 0 ? unit(k) : 0
      for (let n = k * hidden; n < (k + 1) * hidden; n++) expected += Math.max(0, unit(n)) * own.output[n]!
      expect(scores[t * 2 + k]).toBeCloseTo(expected + (k === 0 ? 0.25 * (40 + t) : 0), 3)
    }
  }
})

test('a token has the same score alone and in a chunk', () => {
  const score = createScorer([scorer(0, 1e-3)], shape)
  const tokens = draw(6, 10)
  const scores = new Float32Array(12)
  score(tokens, scores)
  const [key, value] = [tokens.key.slice(4 * 12, 5 * 12), tokens.value.slice(4 * 10, 5 * 10)]
  const alone = new Float32Array(2)
  score({ ...tokens, numTokens: 1, firstPosition: 14, key, value }, alone)
  expect(alone).toEqual(scores.slice(8, 10))
})

test('scorers of other shapes, and with numbers that are none, are refused', () => {
  const own = scorer(2)
  expect(() => createScorer([own, own], shape)).toThrow('expected a scorer of 1 layers, got 2')
  expect(() => createScorer([undefined], shape)).toThrow('expected a scorer for layer 0, got none')
  expect(() => createScorer([{ ...own, weight: own.weight.slice(1) }], shape)).toThrow('of the weight of layer 0')
  expect(() => createScorer([{ ...own, hidden: 1 }], shape)).toThrow('expected')
  expect(() => createScorer([{ ...own, bias: own.bias.map(() => Number.NaN) }], shape)).toThrow(
    'finite numbers of the bias',
  )
  const windowed = { ...shape, layers: [{ ...layer, window: 8 }] }
  expect(() => createScorer([undefined], windowed)).not.toThrow()
})

test('the recent tokens of a score stay, up to a quarter of the window, where the user does not say', () => {
  const kernels = openKernels({ backend: 'reference' })
  const oldest = Object.assign(
    ({ firstPosition, numTokens }: NewTokens, scores: Float32Array) => {
      for (let t = 0; t < numTokens; t++) scores.fill(-firstPosition - t, 2 * t, 2 * t + 2)
    },
    { recent: 3 },
  )
  const kept = (options: object): number[] => {
    const cache = createKvCache(kernels, shape, { policy: 'linear', importance: oldest, ...options })
    for (let n = 0; n < 20; n++) {
      const { key, value } = draw(1, n, n)
      cache.layer(0).attend({ query: new Float32Array(12), key, value, numTokens: 1 }, new Float32Array(10))
    }
    return cache.layer(0).positions(0)
  }
  expect(kept({ window: 12 })).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 17, 18, 19])
  expect(kept({ window: 4 })).toEqual([0, 1, 2, 19])
  expect(kept({ window: 12, recent: 0 })).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
})

test('a name or a file of a scorer needs a loaded model; what is neither is refused', () => {
  const kernels = openKernels({ backend: 'reference' })
  const create = (importance: unknown) => () =>
    createKvCache(kernels, shape, { policy: 'linear', window: 4, importance: importance as 'learned' })
  expect(create('learned')).toThrow('expected a cache of a loaded model')
  expect(create({ scorer: 'file' })).toThrow('expected a cache of a loaded model')
  expect(create('learnt')).toThrow('did you mean "learned"')
  expect(create({ score: 'file' })).toThrow('did you mean "scorer"')
  expect(create({ scorer: 7 })).toThrow('expected the path of a scorer')
})
