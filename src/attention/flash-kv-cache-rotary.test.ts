/** Rotary encoding on the way into the cache. */
import { Tensor } from 'onnxruntime-common'
import { describe, expect, test } from 'vitest'
import type { FloatType } from '../kernels/index.ts'
import { flashAttentionWithKVCache } from './flash-kv-cache.ts'
import { define, type Pair } from './testing/definition.ts'
import { B, before, D, E, H, K, rows, setUp } from './testing/kv-cache.ts'
import { bitsOf, expectClose, numbersOf, sampleOf, usableBackends } from './testing/tensors.ts'

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

describe.each(usableBackends)('flashAttentionWithKVCache, %s', (backend) => {
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
