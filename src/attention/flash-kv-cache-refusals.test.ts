import { Tensor } from 'onnxruntime-common'
import { describe, expect, test } from 'vitest'
import { flashAttentionWithKVCache } from './flash-kv-cache.ts'
import { B, before, D, E, H, K, type Options, rows, setUp } from './testing/kv-cache.ts'
import { bitsOf, int32, sample } from './testing/tensors.ts'

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
    ['splits', () => ({ numSplits: -1 }), /at least 0 for numSplits, got -1/],
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

  test('what is read in the memory that is written', async () => {
    const { kCache, vCache, q, k, v } = setUp(1, 1)
    for (const cache of [kCache, vCache]) {
      const data = cache.data as Float32Array
      data.fill(0)
      const integers = (length: number) => new Int32Array(data.buffer, data.byteOffset + 64, length)
      const angles = new Tensor('float32', data.subarray(0, 280), [70, 4])
      const inside: [string, object][] = [
        ['cacheSeqlens', { cacheSeqlens: integers(B) }],
        ['cacheSeqlens', { cacheSeqlens: new Tensor('int32', integers(B), [B]) }],
        ['cacheLeftpad', { cacheLeftpad: new Tensor('int32', integers(B).fill(0), [B]) }],
        ['rotaryCos', { rotaryCos: angles, rotarySin: table(70) }],
        ['alibiSlopes', { alibiSlopes: data.subarray(0, H) }],
        ['sinkLogits', { sinkLogits: data.subarray(0, H) }],
      ]
      for (const [name, options] of inside) {
        const given = { ...fresh({ k, v }), ...options } as Options
        const already = data.slice()
        const call = flashAttentionWithKVCache(q.tensor, kCache, vCache, given)
        await expect(call, name).rejects.toThrow(`expected ${name} apart from the caches that are written`)
        expect(data).toEqual(already)
        data.fill(0)
      }
    }
  })

  test('a table that is no tensor', async () => {
    const { kCache, vCache, q } = setUp(1, 1)
    for (const blockTable of [null, Number.NaN, [0, 1, 2]] as never[]) {
      const call = flashAttentionWithKVCache(q.tensor, kCache, vCache, { blockTable })
      await expect(call).rejects.toThrow(/expected a Tensor for blockTable, got/)
    }
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
