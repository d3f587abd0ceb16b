import { Tensor } from 'onnxruntime-common'
import { describe, expect, test } from 'vitest'
import { flashAttention } from './flash-attention.ts'
import { flashAttentionWithKVCache } from './flash-kv-cache.ts'
import { define, type Pair } from './testing/definition.ts'
import { B, before, D, E, H, K, type Options, rows, setUp } from './testing/kv-cache.ts'
import { toPages } from './testing/pages.ts'
import { expectClose, expectSameBits, int32, numbersOf, sample, usableBackends } from './testing/tensors.ts'

const forms: Options[] = [
  {},
  { causal: true },
  { causal: true, windowSize: [9, 0], sinks: 2 },
  { causal: true, softcap: 3, softmaxScale: 0.4, smoothSoftmax: true },
  { alibiSlopes: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], causal: true },
]

describe.each(usableBackends)('flashAttentionWithKVCache, %s', (backend) => {
  // The slow one need not prove again what the compiled ones prove: two forms do.
  const tried = backend === 'reference' ? forms.slice(1, 3) : forms

  test.each([1, 4])('stores %i tokens and attends over all, as though they had always been there', async (T) => {
    for (const form of tried) {
      const { kCache, vCache, q, k, v } = setUp(T, T)
      const options = { ...form, backend, returnLse: true } as const
      const [kBefore, vBefore] = [numbersOf(kCache), numbersOf(vCache)]
      const state = await flashAttentionWithKVCache(q.tensor, kCache, vCache, {
        ...options,
        ...{ k: k.tensor, v: v.tensor, cacheSeqlens: int32(before) },
      })
      for (const [b, length] of before.entries()) {
        const whole = (cached: Float32Array, fresh: Float32Array, dim: number) => {
          const own = cached.subarray(b * rows * K * dim, (b * rows + length) * K * dim)
          const added = fresh.subarray(b * T * K * dim, (b + 1) * T * K * dim)
          return new Tensor('float32', Float32Array.from([...own, ...added]), [1, length + T, K, dim])
        }
        const own = new Tensor('float32', q.numbers.slice(b * T * H * D, (b + 1) * T * H * D), [1, T, H, D])
        const alone = await flashAttention(own, whole(kBefore, k.numbers, D), whole(vBefore, v.numbers, E), options)
        expect((state.output.data as Float32Array).slice(b * T * H * E, (b + 1) * T * H * E)).toEqual(alone.output.data)
        expect((state.lse.data as Float32Array).slice(b * T * H, (b + 1) * T * H)).toEqual(alone.lse.data)
      }
      // Nothing else in the cache has changed: not the tokens before, nor the NaN behind.
      const stored = numbersOf(kCache)
      for (const [b, length] of before.entries()) {
        const [from, to] = [(b * rows + length) * K * D, (b * rows + length + T) * K * D]
        expect(stored.slice(from, to)).toEqual(k.numbers.slice(b * T * K * D, (b + 1) * T * K * D))
        kBefore.set(stored.subarray(from, to), from)
      }
      expect(stored).toEqual(kBefore)
    }
  })

  test('without k the cache is read and not changed; one number serves as the length of all', async () => {
    const { kCache, vCache, q } = setUp(2, 2)
    ;(kCache.data as Float32Array).fill(0.5)
    ;(vCache.data as Float32Array).fill(0.25, 0, rows * K * E)
    const whole = await flashAttentionWithKVCache(q.tensor, kCache, vCache, { cacheSeqlens: 40, backend })
    const first = await flashAttentionWithKVCache(q.tensor, kCache, vCache, { cacheSeqlens: [40, 40, 40], backend })
    expect(whole.data).toEqual(first.data)
    const split = await flashAttentionWithKVCache(q.tensor, kCache, vCache, { cacheSeqlens: 40, numSplits: 3, backend })
    expect(split.data).toEqual(first.data)
    expect((whole.data as Float32Array).subarray(0, E)).toEqual(new Float32Array(E).fill(0.25))
    expect((kCache.data as Float32Array).every((value) => value === 0.5)).toBe(true)
  })

  test('without lengths the whole cache counts', async () => {
    const [q, k, v] = [sample(1, [2, 3, H, D]), sample(2, [2, 20, K, D]), sample(3, [2, 20, K, E])]
    const options = { causal: true, backend, returnLse: true } as const
    const expected = await flashAttention(q.tensor, k.tensor, v.tensor, options)
    expectSameBits(await flashAttentionWithKVCache(q.tensor, k.tensor, v.tensor, options), expected)
  })

  test('cacheBatchIdx says which sequence of the cache is whose', async () => {
    const { kCache, vCache, q, k, v } = setUp(1, 1)
    const order = [2, 0, 1]
    const fresh = { k: k.tensor, v: v.tensor }
    const wide = (tensor: Tensor) => new Tensor('float32', (tensor.data as Float32Array).slice(), [...tensor.dims])
    const [kOther, vOther] = [wide(kCache), wide(vCache)]
    const lengths = order.map((b) => before[b] as number)
    const options = { ...fresh, cacheBatchIdx: int32(order), cacheSeqlens: lengths, backend, returnLse: true } as const
    const state = await flashAttentionWithKVCache(q.tensor, kCache, vCache, options)
    for (const [b, sequence] of order.entries()) {
      const part = (tensor: Tensor, heads: number, dim: number) => {
        return new Tensor('float32', (tensor.data as Float32Array).slice(b * heads * dim, (b + 1) * heads * dim), [
          1,
          1,
          heads,
          dim,
        ])
      }
      const alone = await flashAttentionWithKVCache(part(q.tensor, H, D), kOther, vOther, {
        ...{ k: part(k.tensor, K, D), v: part(v.tensor, K, E), cacheSeqlens: [lengths[b] as number] },
        ...{ cacheBatchIdx: [sequence], backend },
      })
      expect((state.output.data as Float32Array).slice(b * H * E, (b + 1) * H * E)).toEqual(alone.data)
    }
    expect(kOther.data).toEqual(kCache.data)
    // Read only, an index may stand twice.
    const twice = await flashAttentionWithKVCache(q.tensor, kCache, vCache, {
      cacheBatchIdx: [2, 2, 2],
      cacheSeqlens: 61,
      backend,
    })
    expect((twice.data as Float32Array).some(Number.isNaN)).toBe(false)
  })

  test('cacheLeftpad leaves out what is before it', async () => {
    const { kCache, vCache, q, k, v } = setUp(2, 2)
    const pads = [3, 0, 20]
    for (const [cache, dim] of [
      [kCache, D],
      [vCache, E],
    ] as const) {
      const data = cache.data as Float32Array
      pads.forEach((pad, b) => void data.fill(Number.NaN, b * rows * K * dim, (b * rows + pad) * K * dim))
    }
    const state = await flashAttentionWithKVCache(q.tensor, kCache, vCache, {
      ...{
        k: k.tensor,
        v: v.tensor,
        cacheSeqlens: before,
        cacheLeftpad: pads,
        causal: true,
        windowSize: [30, 0],
        backend,
      },
      returnLse: true,
    })
    const [kAll, vAll] = [numbersOf(kCache), numbersOf(vCache)].map((all) => all.map((x) => (Number.isNaN(x) ? 0 : x)))
    const total = (b: number) => (before[b] as number) + 2
    const expected = define({
      ...{ B, T: 2, S: rows, H, K, D, E, q: q.numbers, k: kAll as Float32Array, v: vAll as Float32Array },
      sees: ({ b, t, j }: Pair) => {
        const p = total(b) - 2 + t
        return j >= (pads[b] as number) && j <= p && j >= p - 30
      },
    })
    expectClose(state, expected, [B, 2, H, E])
  })

  test.each([1, 7, 16])('a block table with pages of %i gives the bits of a contiguous cache', async (pageSize) => {
    for (const [T, form] of tried.flatMap((each) => [1, 9].map((count) => [count, each] as const))) {
      const { kCache, vCache, q, k, v } = setUp(T, T)
      const used = (tensor: Tensor, dim: number) => {
        const data = tensor.data as Float32Array
        const parts = before.flatMap((length, b) =>
          Array.from(data.subarray(b * rows * K * dim, (b * rows + length) * K * dim)),
        )
        return new Tensor('float32', Float32Array.from(parts), [parts.length / (K * dim), K, dim])
      }
      const sequences = { k: used(kCache, D), v: used(vCache, E), lengths: before }
      const { kPool, vPool, blockTable, row } = toPages({
        ...sequences,
        pageSize,
        seed: pageSize,
        spare: Math.ceil(9 / pageSize),
      })
      const untouched = (kPool.data as Float32Array).slice()
      const options = { ...form, k: k.tensor, v: v.tensor, cacheSeqlens: before, backend, returnLse: true } as const
      const expected = await flashAttentionWithKVCache(q.tensor, kCache, vCache, options)
      expectSameBits(await flashAttentionWithKVCache(q.tensor, kPool, vPool, { ...options, blockTable }), expected)
      // The new tokens are where the table says, and every other row of the pool is what it was.
      for (const [b, length] of before.entries()) {
        for (let t = 0; t < T; t++) {
          const own = k.numbers.subarray((b * T + t) * K * D, (b * T + t + 1) * K * D)
          const at = row(b, length + t) * K * D
          expect((kPool.data as Float32Array).slice(at, at + K * D)).toEqual(own.slice())
          untouched.set(own, at)
        }
      }
      expect(kPool.data).toEqual(untouched)
    }
  })

  test('fewer new keys than queries, none, and no queries', async () => {
    for (const [T, count] of [
      [4, 1],
      [1, 5],
      [2, 0],
      [0, 2],
    ] as const) {
      const { kCache, vCache, q, k, v } = setUp(T, count)
      const state = await flashAttentionWithKVCache(q.tensor, kCache, vCache, {
        ...{ k: k.tensor, v: v.tensor, cacheSeqlens: before, causal: true, backend, returnLse: true },
      })
      const all = [kCache, vCache].map((cache) => numbersOf(cache).map((x) => (Number.isNaN(x) ? 0 : x))) as [
        Float32Array,
        Float32Array,
      ]
      const sees = ({ b, t, j }: Pair) =>
        j <= (before[b] as number) + count - T + t && j < (before[b] as number) + count
      expectClose(state, define({ B, T, S: rows, H, K, D, E, q: q.numbers, k: all[0], v: all[1], sees }), [B, T, H, E])
    }
  })
})
