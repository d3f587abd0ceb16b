import { describe, expect, test } from 'vitest'
import { backends } from '../kernels/backends.ts'
import { createRandom } from '../kernels/cases.ts'
import { backendNames, openKernels } from '../kernels/index.ts'
import { LinearKVCache } from './linear-kv-cache.ts'
import { createCache, createStream, definition, expectClose, type Importance, slice } from './testing/streams.ts'

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
