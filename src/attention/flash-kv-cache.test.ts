import { Tensor } from 'onnxruntime-common'
import { describe, expect, test } from 'vitest'
import type { FloatType } from '../kernels/index.ts'
import { flashAttention } from './flash-attention.ts'
import { type FlashKVCacheOptions, flashAttentionWithKVCache } from './flash-kv-cache.ts'
import { define, type Pair } from './testing/definition.ts'
import { toPages } from './testing/pages.ts'
import {
  bitsOf,
  expectClose,
  expectSameBits,
  int32,
  numbersOf,
  sample,
  sampleOf,
  usableBackends,
} from './testing/tensors.ts'

const [B, H, K, D, E, rows] = [3, 6, 2, 16, 9, 70]
const before = [5, 0, 61]

type Options = Omit<FlashKVCacheOptions, 'returnLse'>

/** A cache whose unused rows hold NaN, and new tokens. */
function setUp(T: number, count: number, storage: FloatType = 'f32', sequences = B) {
  const cache = (seed: number, dim: number) => {
    const { tensor } = sample(seed, [sequences, rows, K, dim], storage)
    const data = tensor.data as Uint16Array
    const nan = { f32: Number.NaN, f16: 0x7e00, bf16: 0x7fc0 }[storage]
    before.forEach((length, b) => void data.fill(nan, (b * rows + length) * K * dim, (b + 1) * rows * K * dim))
    return tensor
  }
  const fresh = (seed: number, heads: number, dim: number, tokens: number) =>
    sample(seed, [B, tokens, heads, dim], storage)
  const [q, k, v] = [fresh(3, H, D, T), fresh(4, K, D, count), fresh(5, K, E, count)]
  return { kCache: cache(1, D), vCache: cache(2, E), q, k, v }
}

/** cos and sin of `positions` rows of `pairs` angles. */
function tables(positions: number, pairs: number) {
  const angles = Float32Array.from(
    { length: positions * pairs },
    (_, i) => Math.floor(i / pairs) / 10 ** ((i % pairs) / pairs),
  )
  return { cos: angles.map(Math.cos), sin: angles.map(Math.sin), pairs, dims: [positions, pairs] as const }
}

/** Rotary encoding by its formula, of one head. */
function rotate(
  x: Float32Array,
  position: number,
  { cos, sin, pairs }: ReturnType<typeof tables>,
  interleaved: boolean,
): Float32Array {
  const out = x.slice()
  for (let i = 0; i < pairs; i++) {
    const [a, b] = interleaved ? [2 * i, 2 * i + 1] : [i, i + pairs]
    const [c, s] = [cos[position * pairs + i] as number, sin[position * pairs + i] as number]
    out[a] = (x[a] as number) * c - (x[b] as number) * s
    out[b] = (x[a] as number) * s + (x[b] as number) * c
  }
  return out
}

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

  test.each(['f32', 'f16', 'bf16'] as const)('rotates as it stores, %s', async (storage) => {
    const table = tables(rows, 6)
    for (const [interleaved, causal] of [
      [true, true],
      [false, true],
      [true, false],
      [false, false],
    ] as const) {
      const [T, count] = [3, 3]
      const { kCache, vCache, q, k, v } = setUp(T, count, storage)
      const kBefore = numbersOf(kCache)
      const state = await flashAttentionWithKVCache(q.tensor, kCache, vCache, {
        ...{ k: k.tensor, v: v.tensor, cacheSeqlens: before, causal, backend, returnLse: true },
        ...{ dtype: storage === 'bf16' ? storage : undefined, rotaryInterleaved: interleaved },
        rotaryCos: new Tensor('float32', table.cos, table.dims),
        rotarySin: new Tensor('float32', table.sin, table.dims),
      })
      const [qRotated, kStored] = [q.numbers.slice(), kBefore.map((x) => (Number.isNaN(x) ? 0 : x))]
      for (const [b, length] of before.entries()) {
        for (let t = 0; t < T; t++) {
          for (let h = 0; h < H; h++) {
            const at = ((b * T + t) * H + h) * D
            // Not causal and not local: all queries are at position cacheSeqlens.
            qRotated.set(rotate(q.numbers.subarray(at, at + D), causal ? length + t : length, table, interleaved), at)
          }
          for (let h = 0; h < K; h++) {
            const at = ((b * count + t) * K + h) * D
            const rotated = rotate(k.numbers.subarray(at, at + D), length + t, table, interleaved)
            kStored.set(sampleOf(rotated, [D], storage).numbers, ((b * rows + length + t) * K + h) * D)
          }
        }
      }
      const stored = numbersOf(kCache)
      const worst = stored.reduce(
        (most, x, i) => Math.max(most, Number.isNaN(x) ? 0 : Math.abs(x - (kStored[i] as number))),
        0,
      )
      // A number that lies between two of f16 or bf16 may be rounded either way.
      expect(worst).toBeLessThanOrEqual({ f32: 1e-6, f16: 2 ** -9, bf16: 2 ** -6 }[storage])
      const vStored = numbersOf(vCache).map((x) => (Number.isNaN(x) ? 0 : x))
      const kSeen = stored.map((x) => (Number.isNaN(x) ? 0 : x))
      const sees = ({ b, t, j }: Pair) => j < (before[b] as number) + (causal ? t + 1 : T)
      expectClose(state, define({ B, T, S: rows, H, K, D, E, q: qRotated, k: kSeen, v: vStored, sees }), [B, T, H, E])
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

  test('f16 tables of angles serve f16 queries', async () => {
    const table = tables(rows, 4)
    const run = async (storage: FloatType) => {
      const { kCache, vCache, q, k, v } = setUp(1, 1, 'f16')
      const [cos, sin] = [sampleOf(table.cos, table.dims, 'f16'), sampleOf(table.sin, table.dims, 'f16')]
      const as = ({ numbers, tensor }: typeof cos) =>
        storage === 'f16' ? tensor : new Tensor('float32', numbers, table.dims)
      return await flashAttentionWithKVCache(q.tensor, kCache, vCache, {
        ...{ k: k.tensor, v: v.tensor, cacheSeqlens: before, rotaryCos: as(cos), rotarySin: as(sin), backend },
      })
    }
    expect(Buffer.compare(bitsOf(await run('f16')), bitsOf(await run('f32')))).toBe(0)
  })
})

describe('what does not fit is refused, and the cache stays as it is', () => {
  const table = (positions: number, pairs = 4) =>
    new Tensor('float32', new Float32Array(positions * pairs), [positions, pairs])
  const refusals: [string, (parts: ReturnType<typeof setUp>) => Options, RegExp][] = [
    ['k alone', ({ k }) => ({ k: k.tensor, cacheSeqlens: before }), /k and v together, got k alone/],
    ['no lengths', ({ k, v }) => ({ k: k.tensor, v: v.tensor }), /cacheSeqlens with k and v, got none/],
    ['no room', (p) => ({ ...fresh(p), cacheSeqlens: [5, 0, 69] }), /69 cached and 2 new tokens for 70 rows/],
    ['too long', () => ({ cacheSeqlens: 71 }), /in 0\.\.70 for cacheSeqlens\[0\], got 71/],
    ['half lengths', () => ({ cacheSeqlens: 1.5 }), /cacheSeqlens\[0\], got 1\.5/],
    ['two lengths for three', () => ({ cacheSeqlens: [1, 2] }), /shape \[3\] for cacheSeqlens, got \[2\]/],
    ['one angle table', (p) => ({ ...fresh(p), rotaryCos: table(70) }), /rotaryCos and rotarySin, got one/],
    ['angles without k', () => ({ rotaryCos: table(70), rotarySin: table(70) }), /k and v with rotaryCos/],
    ['few angles', (p) => ({ ...fresh(p), rotaryCos: table(62), rotarySin: table(62) }), /at least 63 rows .* got 62/],
    [
      'angles of two shapes',
      (p) => ({ ...fresh(p), rotaryCos: table(70), rotarySin: table(70, 5) }),
      /\[70, 4\] for rotarySin/,
    ],
    [
      'too many angles',
      (p) => ({ ...fresh(p), rotaryCos: table(70, 9), rotarySin: table(70, 9) }),
      /in 0\.\.8 .* got 9/,
    ],
    ['an index twice', (p) => ({ ...fresh(p), cacheBatchIdx: [0, 1, 1] }), /distinct cacheBatchIdx/],
    ['an index outside', () => ({ cacheBatchIdx: [0, 1, 3] }), /in 0\.\.2 for cacheBatchIdx\[2\], got 3/],
    [
      'padding past the tokens',
      () => ({ cacheSeqlens: 4, cacheLeftpad: [0, 5, 0] }),
      /cacheLeftpad\[1\] of at most 4, got 5/,
    ],
    ['splits', () => ({ numSplits: 4 }), /expected 0 for numSplits .* got 4/],
    [
      'v of another type',
      ({ k }) => ({ ...fresh({ k, v: sample(1, [B, 2, K, E], 'f16') }) }),
      /expected f32 for v, as kCache is, got f16/,
    ],
    ['k of other heads', ({ v }) => ({ ...fresh({ k: sample(1, [B, 2, K + 1, D]), v }) }), /\[3, any, 2, 16\] for k/],
    [
      'both kinds of places',
      () => ({ blockTable: int32([0], [1, 1]), cacheBatchIdx: [0] }),
      /blockTable or cacheBatchIdx/,
    ],
    ['padded pages', () => ({ blockTable: int32([0], [1, 1]), cacheLeftpad: [0] }), /blockTable or cacheLeftpad/],
    [
      'a page outside',
      (p) => ({ ...fresh(p), blockTable: int32([0, 1, 3], [3, 1]) }),
      /pages in 0\.\.2 in blockTable, got 3/,
    ],
    [
      'a table too short',
      () => ({ blockTable: int32([], [3, 0]), cacheSeqlens: [0, 0, 1] }),
      /in 0\.\.0 for cacheSeqlens\[2\]/,
    ],
    [
      'one row for two',
      (p) => ({ ...fresh(p), blockTable: int32([0, 0, 1], [3, 1]), cacheSeqlens: 9 }),
      /row 9 of page 0 in those of 0 and 1/,
    ],
    [
      'a row that another reads',
      (p) => ({ ...fresh(p), blockTable: int32([0, 0, 1], [3, 1]), cacheSeqlens: [9, 30, 0] }),
      /row 9 of page 0/,
    ],
    ['dropout', () => ({ dropoutP: 0.1 }), /dropoutP is for training/],
    ['probabilities', () => ({ returnAttnProbs: true }), /returnAttnProbs/],
    ['a word', () => ({ cacheSeqLens: 1 }) as Options, /did you mean "cacheSeqlens"/],
  ]
  const fresh = ({ k, v }: Pick<ReturnType<typeof setUp>, 'k' | 'v'>) => ({
    k: k.tensor,
    v: v.tensor,
    cacheSeqlens: before,
  })

  test.each(refusals)('%s', async (_name, options, message) => {
    const parts = setUp(2, 2)
    const [keys, values] = [bitsOf(parts.kCache).slice(), bitsOf(parts.vCache).slice()]
    const call = flashAttentionWithKVCache(parts.q.tensor, parts.kCache, parts.vCache, options(parts))
    await expect(call).rejects.toThrow(message)
    expect(bitsOf(parts.kCache)).toEqual(keys)
    expect(bitsOf(parts.vCache)).toEqual(values)
  })

  test('a cache for fewer sequences, and one memory for both', async () => {
    const { kCache, vCache, q, k, v } = setUp(2, 2)
    const few = (cache: Tensor, dim: number) =>
      new Tensor('float32', (cache.data as Float32Array).slice(0, rows * K * dim), [1, rows, K, dim])
    await expect(flashAttentionWithKVCache(q.tensor, few(kCache, D), few(vCache, E))).rejects.toThrow(
      /at least 3 sequences, as q has, got 1/,
    )
    await expect(
      flashAttentionWithKVCache(q.tensor, kCache, kCache, { k: k.tensor, v: k.tensor, cacheSeqlens: 0 }),
    ).rejects.toThrow(/kCache and vCache apart/)
    const inside = new Tensor('float32', (kCache.data as Float32Array).subarray(0, B * 2 * K * D), [B, 2, K, D])
    await expect(
      flashAttentionWithKVCache(q.tensor, kCache, vCache, { k: inside, v: v.tensor, cacheSeqlens: 0 }),
    ).rejects.toThrow(/expected k apart from the caches/)
  })

  test('pages may be shared for reading', async () => {
    const { kCache, vCache, q, k, v } = setUp(1, 1)
    ;(kCache.data as Float32Array).fill(1)
    ;(vCache.data as Float32Array).fill(1)
    const blockTable = int32([0, 1, 0, 2, 0, 1], [3, 2])
    // Page 0 is full and common to all; what follows is stored in 1 and 2.
    const lengths = [70, 70]
    const two = (tensor: Tensor, heads: number, dim: number) =>
      new Tensor('float32', (tensor.data as Float32Array).slice(0, 2 * heads * dim), [2, 1, heads, dim])
    const options = { k: two(k.tensor, K, D), v: two(v.tensor, K, E), cacheSeqlens: lengths }
    const table = int32((blockTable.data as Int32Array).slice(0, 4), [2, 2])
    const output = await flashAttentionWithKVCache(two(q.tensor, H, D), kCache, vCache, {
      ...options,
      blockTable: table,
    })
    expect((output.data as Float32Array).some(Number.isNaN)).toBe(false)
  })
})
