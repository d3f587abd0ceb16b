import { describe, expect, test } from 'vitest'
import { createRandom, normal } from '../kernels/cases.ts'
import { openKernels } from '../kernels/index.ts'
import { linearKvCacheAttention } from './linear-attention.ts'
import { LinearKVCache } from './linear-kv-cache.ts'
import { expectClose, tensor } from './testing/streams.ts'

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
