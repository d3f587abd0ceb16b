import { describe, expect, test } from 'vitest'
import type { CacheOptions, CacheShape, KvCache, LayerInput, LayerShape } from '../cache/contract.ts'
import { backends } from '../kernels/backends.ts'
import { createRandom, normal } from '../kernels/cases.ts'
import { backendNames, openKernels } from '../kernels/index.ts'
import { createKvCache, policyNames, readPolicy } from './index.ts'

const layerShape: LayerShape = { numHeads: 4, numKvHeads: 2, headDim: 16, valueDim: 12 }
const shape: CacheShape = { numLayers: 2, layers: [layerShape, layerShape], hasImportance: true }

function tokens(random: () => number, numTokens: number): LayerInput {
  const { numHeads, numKvHeads, headDim, valueDim } = layerShape
  return {
    numTokens,
    query: normal(random, numTokens * numHeads * headDim),
    key: normal(random, numTokens * numKvHeads * headDim),
    value: normal(random, numTokens * numKvHeads * valueDim),
    importance: normal(random, numTokens * numKvHeads),
  }
}

function run(cache: KvCache, chunks: readonly number[], seed = 1): number[] {
  const random = createRandom(seed)
  const total = chunks.reduce((a, b) => a + b, 0)
  const all = tokens(random, total)
  const outputs: number[] = []
  let from = 0
  for (const numTokens of chunks) {
    const part = (array: Float32Array) =>
      array.slice((from * array.length) / total, ((from + numTokens) * array.length) / total)
    const input = {
      numTokens,
      query: part(all.query),
      key: part(all.key),
      value: part(all.value),
      importance: part(all.importance as Float32Array),
      rotary: null,
    }
    for (let layer = 0; layer < cache.numLayers; layer++) {
      const output = new Float32Array(numTokens * layerShape.numHeads * layerShape.valueDim)
      cache.layer(layer).attend(input, output)
      if (layer === 0) outputs.push(...output)
    }
    from += numTokens
  }
  return outputs
}

function expectClose(actual: readonly number[], expected: readonly number[]): void {
  expect(actual.length).toBe(expected.length)
  const worst = Math.max(...actual.map((value, i) => Math.abs(value - (expected[i] as number))))
  expect(worst).toBeLessThanOrEqual(2e-5)
}

const one = (count: number) => Array.from({ length: count }, () => 1)
const cases: CacheOptions[] = [
  { policy: 'full' },
  { policy: 'full', window: 20 },
  { policy: 'window', window: 20 },
  { policy: 'window', window: 20, sinks: 3 },
  { policy: 'linear', window: 20 },
  { policy: 'linear', window: 20, sinks: 2, recent: 6 },
  { policy: 'linear', window: 1 },
  { policy: 'streaming', window: 20 },
  { policy: 'random', window: 20, seed: 3 },
  { policy: 'linear', window: 20, importance: 'value-norm', sinks: 2 },
  { policy: 'linear', window: 20, importance: 'key-norm' },
  { policy: 'pyramidkv(linear)', window: 20 },
  { policy: 'linear', window: 20, storage: 'paged', pageSize: 4 },
  { policy: 'full', storage: 'paged' },
  { policy: 'full', window: 20, storage: 'paged' },
]

/** Policies whose scores change: what stays depends on the chunks. */
const rankedCases: CacheOptions[] = [
  { policy: 'h2o', window: 20 },
  { policy: 'tova', window: 20 },
  { policy: 'snapkv', window: 20 },
  { policy: 'keydiff', window: 20 },
  { policy: 'lagkv', window: 40 },
  { policy: 'expected-attention', window: 20 },
  { policy: 'adakv', window: 20 },
  { policy: 'pyramidkv', window: 20 },
]

test('every policy is in the cases', () => {
  expect(new Set([...cases, ...rankedCases].map(({ policy }) => policy.replace(/\(.*/, '')))).toEqual(
    new Set(policyNames),
  )
})

describe.each(backendNames.filter((name) => backends[name].probe() === true))('%s', (backend) => {
  const kernels = openKernels({ backend, threads: 2 })

  describe.each(cases.flatMap((options) => [options, { ...options, kvDtype: 'f16' as const }]))('%o', (options) => {
    test('chunks of any size give what single tokens give', () => {
      const expected = run(createKvCache(kernels, shape, options), one(75))
      for (const chunks of [[75], [1, 74], [30, 1, 1, 43], [7, 68], [64, 11]]) {
        const cache = createKvCache(kernels, shape, options)
        expectClose(run(cache, chunks), expected)
        expect(cache.seenTokens).toBe(75)
      }
    })

    test('a fork goes its own way', () => {
      const cache = createKvCache(kernels, shape, options)
      run(cache, [40])
      const fork = cache.fork()
      expect(fork.getCacheInfo()).toEqual(cache.getCacheInfo())
      const expected = run(cache, [9, 1], 2)
      expectClose(run(fork, [9, 1], 2), expected)
      const positions = fork.layer(0).positions(0)
      run(cache, [30], 3)
      expect(fork.layer(0).positions(0)).toEqual(positions)
      fork.dispose()
      run(cache, [5], 4)
    })
  })

  test.each(cases)('NaN, +Infinity and missing importance are refused and change nothing: %o', (options) => {
    const cache = createKvCache(kernels, shape, options)
    run(cache, [30])
    const before = cache.getCacheInfo()
    const input = tokens(createRandom(4), 2)
    const output = new Float32Array(2 * layerShape.numHeads * layerShape.valueDim)
    const spoiled = [Number.NaN, Number.POSITIVE_INFINITY].map((value) => Float32Array.of(1, 2, value, 4))
    for (const importance of [...spoiled, undefined, new Float32Array(3)]) {
      expect(() => cache.layer(0).attend({ ...input, importance }, output)).toThrow(/importance/)
    }
    expect(() => cache.layer(0).attend({ ...input, value: new Float32Array(3) }, output)).toThrow(/value/)
    expect(() => cache.layer(0).attend(input, output.subarray(1))).toThrow(/output/)
    expect(cache.getCacheInfo()).toEqual(before)
  })

  test('linear agrees with full under the same dynamic mask', () => {
    const linear = createKvCache(kernels, shape, { policy: 'linear', window: 20 })
    const full = createKvCache(kernels, shape, { policy: 'full', window: 20 })
    expectClose(run(linear, [50, 1, 1, 90, 1]), run(full, [50, 1, 1, 90, 1]))
  })

  test('window keeps the newest, with sinks the first too', () => {
    const cache = createKvCache(kernels, shape, { policy: 'window', window: 5, sinks: 2 })
    run(cache, [9, 1])
    for (const head of [0, 1]) expect(cache.layer(1).positions(head)).toEqual([0, 1, 7, 8, 9])
  })

  test('recent tokens that are asked for go before the sinks that a policy has by itself', () => {
    const cache = createKvCache(kernels, shape, { policy: 'streaming', window: 5, recent: 4 })
    run(cache, [9, 1])
    for (const head of [0, 1]) expect(cache.layer(1).positions(head)).toEqual([0, 6, 7, 8, 9])
    const all = createKvCache(kernels, shape, { policy: 'streaming', window: 5, recent: 5 })
    run(all, [9, 1])
    expect(all.layer(1).positions(0)).toEqual([5, 6, 7, 8, 9])
  })

  test('a window as long as the stream is the full cache', () => {
    const window = createKvCache(kernels, shape, { policy: 'window', window: 100 })
    const full = createKvCache(kernels, shape, { policy: 'full' })
    expectClose(run(window, [60, 1, 20]), run(full, [60, 1, 20]))
  })
})

describe('options', () => {
  const kernels = openKernels()
  test.each<[Record<string, unknown>, RegExp]>([
    [{ policy: 'lienar', window: 5 }, /did you mean "linear"/],
    [{ policy: 'linear' }, /needs a window/],
    [{ policy: 'linear', window: 0 }, /at least 1|1\.\./],
    [{ policy: 'linear', window: -3 }, /window/],
    [{ policy: 'linear', window: 4, sinks: 3, recent: 2 }, /sinks \+ recent/],
    [{ policy: 'full', sinks: 3 }, /mean nothing/],
    [{ policy: 'full', kvDtype: 'f8' }, /kvDtype/],
    [{ policy: 'full', windw: 3 }, /did you mean "window"/],
  ])('refuses %o', (options, message) => {
    expect(() => createKvCache(kernels, shape, options as never)).toThrow(message)
  })

  test('linear needs a model with importance', () => {
    expect(() => createKvCache(kernels, { ...shape, hasImportance: false }, { policy: 'linear', window: 5 })).toThrow(
      /importance/,
    )
  })

  test('the table says who needs a window', () => {
    for (const name of policyNames) {
      const make = () => createKvCache(kernels, shape, { policy: name })
      if (readPolicy(name).entry.needsWindow) expect(make).toThrow(/window/)
      else make()
    }
  })
})

test.each(['keydiff', 'lagkv', 'expected-attention'] as const)(
  '%s ranks one head of all layers in a step',
  (policy) => {
    const [window, interval] = [64, 16]
    const cache = createKvCache(openKernels({ threads: 1 }), shape, { policy, window, interval })
    run(cache, [100])
    const heads = () => cache.explain!().flatMap((layer) => layer.heads.map(({ positions }) => positions.length))
    let before = heads()
    const ranked: number[] = []
    for (let n = 0; n < 3 * interval; n++) {
      run(cache, [1], n + 2)
      const after = heads()
      ranked.push(after.filter((length, k) => length < (before[k] as number)).length)
      expect(Math.max(...after)).toBeLessThanOrEqual(window)
      expect(Math.min(...after)).toBeGreaterThan(window - interval)
      before = after
    }
    expect(Math.max(...ranked)).toBe(1)
    expect(ranked.reduce((a, b) => a + b, 0)).toBe(3 * before.length)
  },
)
