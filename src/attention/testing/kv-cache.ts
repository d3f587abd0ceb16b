/** What the tests of attention with a KV cache begin with. */
import type { FloatType } from '../../kernels/index.ts'
import type { FlashKVCacheOptions } from '../flash-kv-cache.ts'
import { sample } from './tensors.ts'

export const [B, H, K, D, E, rows] = [3, 6, 2, 16, 9, 70]
/** Tokens that the cache of each sequence holds. */
export const before = [5, 0, 61]

export type Options = Omit<FlashKVCacheOptions, 'returnLse'>

/** A cache whose unused rows hold NaN, and new tokens. */
export function setUp(T: number, count: number, storage: FloatType = 'f32', sequences = B) {
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
