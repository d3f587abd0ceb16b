import { Tensor } from 'onnxruntime-common'
import { describe, expect, test } from 'vitest'
import { dynamicMaskAttention } from '../attention/dynamic-mask.ts'
import { backends } from '../kernels/backends.ts'
import { createRandom, normal } from '../kernels/cases.ts'
import { backendNames, type Kernels, openKernels } from '../kernels/index.ts'
import { f16ToF32, f32ToF16 } from '../tensor/float16.ts'
import { linearKvCacheAttention } from './linear-attention.ts'
import { LinearKVCache, type LinearKVCacheOptions } from './linear-kv-cache.ts'

const tensor = (data: Float32Array, dims: number[]) => new Tensor('float32', data, dims)

/** The most that any two backends' f32 results may differ: outputs are weighted means of values of size about 1. */
const tolerance = 2e-5

type Importance = 'normal' | 'ties' | 'equal' | 'masked' | 'huge'

/** Scores of one stream: plain, with ties, all equal, with masked tokens, or so large that one key takes all. */
function importances(kind: Importance, random: () => number, length: number): Float32Array {
  const scores = normal(random, length)
  if (kind === 'ties') return scores.map((score) => Math.round(score))
  if (kind === 'equal') return scores.fill(0.25)
  if (kind === 'masked') return scores.map((score) => (random() < 0.3 ? Number.NEGATIVE_INFINITY : score))
  return kind === 'huge' ? scores.map((score) => score * 200) : scores
}

interface Stream {
  readonly numTokens: number
  readonly numHeads: number
  readonly numKvHeads: number
  readonly headDim: number
  readonly query: Float32Array
  readonly key: Float32Array
  readonly value: Float32Array
  readonly importance: Float32Array
}

function createStream(seed: number, numTokens: number, kind: Importance, dtype: 'f32' | 'f16'): Stream {
  const random = createRandom(seed)
  const numKvHeads = 1 + (seed % 3)
  const numHeads = numKvHeads * (1 + (seed % 4))
  const headDim = [8, 5, 16][seed % 3] as number
  const stored = (length: number) => {
    const values = normal(random, length)
    return dtype === 'f16' ? values.map((value) => f16ToF32(f32ToF16(value))) : values
  }
  return {
    ...{ numTokens, numHeads, numKvHeads, headDim },
    query: normal(random, numTokens * numHeads * headDim),
    key: stored(numTokens * numKvHeads * headDim),
    value: stored(numTokens * numKvHeads * headDim),
    importance: importances(kind, random, numTokens * numKvHeads),
  }
}

/** Tokens [from, to) of a stream. */
function slice(stream: Stream, from: number, to: number) {
  const part = (array: Float32Array, size: number) => array.slice(from * size, to * size)
  const { numHeads: H, numKvHeads: K, headDim: D } = stream
  return {
    numTokens: to - from,
    query: part(stream.query, H * D),
    key: part(stream.key, K * D),
    value: part(stream.value, K * D),
    importance: part(stream.importance, K),
  }
}

function createCache(
  stream: Stream,
  keepWindowSize: number,
  options: Partial<LinearKVCacheOptions> = {},
): LinearKVCache {
  const { numHeads, numKvHeads, headDim } = stream
  return new LinearKVCache({ numHeads, numKvHeads, headDim, keepWindowSize, ...options })
}

/** What every query sees by definition: the whole history ranked anew. */
async function definition(
  stream: Stream,
  keepWindowSize: number,
  kernels: Kernels,
  addBias = true,
): Promise<Float32Array> {
  const { numTokens: T, numHeads: H, numKvHeads: K, headDim: D } = stream
  const bias = new Float32Array(K * T)
  for (let i = 0; i < K * T; i++) bias[i] = stream.importance[(i % T) * K + Math.floor(i / T)] as number
  const output = await dynamicMaskAttention(
    ...([
      tensor(stream.query, [1, T, H, D]),
      tensor(stream.key, [1, T, K, D]),
      tensor(stream.value, [1, T, K, D]),
    ] as const),
    tensor(bias, [1, K, 1, T]),
    { keepWindowSize, kernels, addBias },
  )
  return output.data as Float32Array
}

function expectClose(actual: Float32Array, expected: Float32Array): void {
  const worst = actual.reduce((most, value, i) => {
    const difference = Math.abs(value - (expected[i] as number))
    return difference <= most ? most : Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference
  }, 0)
  expect(worst).toBeLessThanOrEqual(tolerance)
}

const available = backendNames.filter((name) => backends[name].probe() === true)
const kinds: Importance[] = ['normal', 'ties', 'equal', 'masked', 'huge']
const windows = [1, 2, 7, 32, 1000]

describe.each(available)('linear cache, %s', (backend) => {
  const kernels = openKernels({ backend, threads: 2 })
  // 5 kinds x 5 windows x 2 types x 404 tokens: over 20,000 steps on each backend.
  const numTokens = 404

  test.each(kinds)(
    'each of 4,040 steps agrees with dynamic mask attention over the whole history: %s',
    async (kind) => {
      for (const [n, keepWindowSize] of windows.entries()) {
        for (const dtype of ['f32', 'f16'] as const) {
          const stream = createStream(100 + n, numTokens, kind, dtype)
          const { numHeads: H, headDim: D } = stream
          const expected = await definition(stream, keepWindowSize, kernels)
          const cache = createCache(stream, keepWindowSize, { kernels, dtype })
          const output = new Float32Array(numTokens * H * D)
          for (let t = 0; t < numTokens; t++) {
            cache.update(slice(stream, t, t + 1), output.subarray(t * H * D, (t + 1) * H * D))
          }
          expectClose(output, expected)
          cache.dispose()
        }
      }
    },
  )

  test('update with many tokens equals one at a time, for any cut into chunks', () => {
    const random = createRandom(42)
    for (const [sinks, recent] of [
      [0, 0],
      [3, 0],
      [0, 4],
      [2, 5],
    ]) {
      for (const kind of kinds) {
        const stream = createStream(7, 90, kind, 'f16')
        const { numHeads: H, headDim: D, numKvHeads } = stream
        const options = { kernels, dtype: 'f16', sinks, recent } as const
        const single = createCache(stream, 12, options)
        const chunked = createCache(stream, 12, options)
        const [expected, actual] = [new Float32Array(90 * H * D), new Float32Array(90 * H * D)]
        for (let t = 0; t < 90; t++)
          single.update(slice(stream, t, t + 1), expected.subarray(t * H * D, (t + 1) * H * D))
        for (let from = 0, to = 0; from < 90; from = to) {
          to = Math.min(90, from + 1 + Math.floor(random() * 30))
          chunked.update(slice(stream, from, to), actual.subarray(from * H * D, to * H * D))
        }
        expectClose(actual, expected)
        for (let k = 0; k < numKvHeads; k++) expect(chunked.positions(k)).toEqual(single.positions(k))
      }
    }
  })

  test('each KV head keeps its own best W, and ties go to the newer', () => {
    const cache = new LinearKVCache({ numHeads: 2, headDim: 1, keepWindowSize: 2, kernels })
    const importance = Float32Array.of(5, 1, 1, 1, 3, 1, 3, 1, 2, 0)
    cache.update({ key: new Float32Array(10), value: new Float32Array(10), importance, numTokens: 5 })
    expect(cache.positions(0)).toEqual([0, 3])
    expect(cache.positions(1)).toEqual([2, 3])
  })

  test('sinks and recent tokens stay whatever their score', () => {
    const cache = new LinearKVCache({ numHeads: 1, headDim: 1, keepWindowSize: 5, sinks: 1, recent: 2, kernels })
    const importance = Float32Array.of(0, 1, 9, 2, 8, 3, 7, 0, 0)
    cache.update({ key: new Float32Array(9), value: new Float32Array(9), importance, numTokens: 9 })
    expect(cache.positions(0)).toEqual([0, 2, 4, 7, 8])
  })
})

describe('LinearKVCache', () => {
  const kernels = openKernels()

  test('only selects when importance is not to be added', async () => {
    const stream = createStream(5, 60, 'normal', 'f32')
    const output = new Float32Array(60 * stream.numHeads * stream.headDim)
    createCache(stream, 9, { kernels, addImportance: false }).update(slice(stream, 0, 60), output)
    expectClose(output, await definition(stream, 9, kernels, false))
  })

  test('memory is the same after one token and after thousands', () => {
    const stream = createStream(6, 5000, 'normal', 'f16')
    const cache = createCache(stream, 64, { kernels, dtype: 'f16' })
    const before = cache.getCacheInfo().bytes
    const { numKvHeads: K, headDim: D } = stream
    expect(before).toBe(K * 64 * (2 * D * 2 + 4))
    cache.update({ ...slice(stream, 0, 5000), query: undefined })
    const info = cache.getCacheInfo()
    expect(info).toEqual({
      ...{ keptTokens: 64, seenTokens: 5000, capacityUtilization: 1, bytes: before, evictedTokens: 4936 },
      fullBytes: 5000 * K * (2 * D * 2 + 4),
    })
  })

  test('a step allocates no arrays', () => {
    // 32 heads: arrays of up to 64 bytes live on the JavaScript heap and would not be counted.
    const cache = new LinearKVCache({ numHeads: 32, headDim: 4, keepWindowSize: 64, kernels })
    const values = new Float32Array(128)
    const token = { query: values, key: values, value: values, importance: new Float32Array(32), numTokens: 1 }
    const output = new Float32Array(128)
    const growth = () => {
      const { arrayBuffers } = process.memoryUsage()
      for (let n = 0; n < 500; n++) cache.update(token, output)
      return process.memoryUsage().arrayBuffers - arrayBuffers
    }
    growth()
    // Less is possible: garbage of what came before.
    expect(Math.max(growth(), growth(), growth())).toBeLessThanOrEqual(0)
  })

  test('reset forgets all and gives what a new cache gives', () => {
    const stream = createStream(8, 50, 'ties', 'f32')
    const outputs = [0, 1].map(() => new Float32Array(50 * stream.numHeads * stream.headDim))
    const cache = createCache(stream, 10, { kernels, recent: 3 })
    cache.update(slice(stream, 0, 50), outputs[0])
    cache.reset()
    expect(cache.getCacheInfo()).toMatchObject({ keptTokens: 0, seenTokens: 0, evictedTokens: 0 })
    expect(cache.positions(0)).toEqual([])
    cache.update(slice(stream, 0, 50), outputs[1])
    expect(outputs[1]).toEqual(outputs[0])
  })

  test('NaN importance is refused and leaves the cache as it was', () => {
    const stream = createStream(9, 20, 'normal', 'f32')
    const cache = createCache(stream, 10, { kernels })
    cache.update({ ...slice(stream, 0, 15), query: undefined })
    const bad = { ...slice(stream, 15, 20), query: undefined }
    bad.importance[3] = Number.NaN
    expect(() => cache.update(bad)).toThrow(/NaN/)
    expect(cache.getCacheInfo().seenTokens).toBe(15)
  })

  test.each([
    [{ keepWindowSize: 0 }, /keepWindowSize/],
    [{ keepWindowSize: 2.5 }, /keepWindowSize/],
    [{ keepWindow: 5 }, /did you mean "keepWindowSize"/],
    [{ numHeads: 3, numKvHeads: 2 }, /multiple/],
    [{ dtype: 'f15' }, /did you mean "f16"/],
    [{ sinks: 9, recent: 9, keepWindowSize: 10 }, /recent/],
    [{ device: 'gpu' }, /device/],
    [{ softmaxScale: Number.NaN }, /softmaxScale/],
    [{ addImportance: 'no' }, /addImportance/],
    [{ headDim: 70_000 }, /headDim/],
  ])('refuses %o', (options, message) => {
    expect(() => new LinearKVCache({ numHeads: 2, headDim: 4, kernels, ...options } as never)).toThrow(message)
  })

  test('a disposed cache is refused rather than written into what belongs to another', () => {
    for (const backend of available) {
      const cache = new LinearKVCache({ numHeads: 1, headDim: 4, kernels: openKernels({ backend }) })
      const token = {
        key: new Float32Array(4),
        value: new Float32Array(4),
        importance: new Float32Array(1),
        numTokens: 1,
      }
      cache.update(token)
      cache.dispose()
      expect(() => cache.update(token)).toThrow(/freed/)
    }
  })

  test('refuses arrays of the wrong size', () => {
    const cache = new LinearKVCache({ numHeads: 2, headDim: 4, kernels })
    const good = { key: new Float32Array(8), value: new Float32Array(8), importance: new Float32Array(2), numTokens: 1 }
    cache.update(good)
    expect(() => cache.update({ ...good, key: new Float32Array(7) })).toThrow(/8 for key, got 7/)
    expect(() => cache.update({ ...good, numTokens: -1 })).toThrow(/numTokens/)
    expect(() => cache.update({ ...good, query: new Float32Array(8) })).toThrow(/output/)
  })
})

describe('linearKvCacheAttention', () => {
  const kernels = openKernels()
  const random = createRandom(3)
  const [B, H, K, D, T] = [2, 4, 2, 8, 30]
  const all = {
    query: normal(random, B * H * T * D),
    key: normal(random, B * K * T * D),
    value: normal(random, B * K * T * D),
    importance: normal(random, B * K * T),
  }
  /** Tokens [from, to) of `[B, heads, T, dim]`. */
  const tokens = (data: Float32Array, heads: number, dim: number, from: number, to: number) => {
    const out: number[] = []
    for (let row = 0; row < B * heads; row++) out.push(...data.subarray((row * T + from) * dim, (row * T + to) * dim))
    return tensor(Float32Array.from(out), [B, heads, to - from, dim])
  }
  const inputs = (from: number, to: number) =>
    [
      ...([tokens(all.query, H, D, from, to), tokens(all.key, K, D, from, to)] as const),
      ...([tokens(all.value, K, D, from, to), tokens(all.importance, K, 1, from, to)] as const),
    ] as const

  test('steps, one call and the path without a cache give the same', async () => {
    const once = await linearKvCacheAttention(...inputs(0, T), { keepWindowSize: 6, kernels })
    const standard = await linearKvCacheAttention(...inputs(0, T), { keepWindowSize: 6, inferenceMode: false, kernels })
    expect(standard.cache).toBeUndefined()
    expectClose(standard.output.data as Float32Array, once.output.data as Float32Array)
    let cache: LinearKVCache | undefined
    for (let t = 0; t < T; t++) {
      const step = await linearKvCacheAttention(...inputs(t, t + 1), {
        cache,
        keepWindowSize: 6,
        sequencePosition: t,
        kernels: cache ? undefined : kernels,
      })
      cache = step.cache
      expect(step.output.dims).toEqual([B, H, 1, D])
      expectClose(
        step.output.data as Float32Array,
        tokens(once.output.data as Float32Array, H, D, t, t + 1).data as Float32Array,
      )
    }
    expect(cache?.getCacheInfo().keptTokens).toBe(6)
  })

  test('refuses shapes, positions and caches that do not fit', async () => {
    const [query, key, value, importance] = inputs(0, 1)
    await expect(linearKvCacheAttention(query, value, key, tensor(new Float32Array(4), [B, K, 1]))).rejects.toThrow(
      /importance/,
    )
    await expect(linearKvCacheAttention(query, query, value, importance)).rejects.toThrow(/value/)
    await expect(linearKvCacheAttention(query, key, value, importance, { sequencePosition: 3 })).rejects.toThrow(
      /sequencePosition/,
    )
    const cache = new LinearKVCache({ numHeads: 1, headDim: D, kernels })
    await expect(linearKvCacheAttention(query, key, value, importance, { cache })).rejects.toThrow(
      /expected a cache of/,
    )
    const own = new LinearKVCache({ numHeads: H, numKvHeads: K, headDim: D, batchSize: B, kernels })
    const conflicting = { cache: own, addImportance: false }
    await expect(linearKvCacheAttention(query, key, value, importance, conflicting)).rejects.toThrow(/addImportance/)
    await expect(linearKvCacheAttention(query, key, value, importance, { keepWindow: 3 } as never)).rejects.toThrow(
      /did you mean/,
    )
  })
})
