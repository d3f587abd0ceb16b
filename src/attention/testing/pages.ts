/** Sequences end to end, scattered over a pool of pages that is far bigger than needed and otherwise full of NaN. */
import { Tensor } from 'onnxruntime-common'
import { createRandom } from '../../kernels/cases.ts'
import { int32 } from './tensors.ts'

interface Sequences {
  /** `[total, K, D]` float32 or float16 */
  readonly k: Tensor
  readonly v: Tensor
  readonly lengths: readonly number[]
  readonly pageSize: number
  readonly seed: number
  /** Pages a sequence beyond what its tokens need (default 1). */
  readonly spare?: number
}

export interface Pages {
  /** `[blocks, pageSize, K, D]` */
  readonly kPool: Tensor
  readonly vPool: Tensor
  readonly blockTable: Tensor
  /** The row of the pool, in tokens, of token j of sequence b. */
  readonly row: (b: number, j: number) => number
}

export function toPages({ k, v, lengths, pageSize, seed, spare = 1 }: Sequences): Pages {
  const random = createRandom(seed)
  const maxBlocks = Math.max(0, ...lengths.map((length) => Math.ceil(length / pageSize))) + spare
  const numBlocks = 5 * lengths.length * maxBlocks + 3
  const order = Array.from({ length: numBlocks }, (_, i) => ({ i, key: random() })).sort((a, b) => a.key - b.key)
  const table = Int32Array.from({ length: lengths.length * maxBlocks }, (_, n) => (order[n] as { i: number }).i)
  const row = (b: number, j: number) =>
    (table[b * maxBlocks + Math.floor(j / pageSize)] as number) * pageSize + (j % pageSize)
  const scatter = (tensor: Tensor): Tensor => {
    const [, K, dim] = tensor.dims as [number, number, number]
    const data = tensor.data as Uint16Array
    const Type = data.constructor as Uint16ArrayConstructor
    // 0x7e00 is a NaN as f16.
    const pool = new Type(numBlocks * pageSize * K * dim).fill(tensor.type === 'float16' ? 0x7e00 : Number.NaN)
    let from = 0
    for (const [b, length] of lengths.entries()) {
      for (let j = 0; j < length; j++, from++)
        pool.set(data.subarray(from * K * dim, (from + 1) * K * dim), row(b, j) * K * dim)
    }
    return new Tensor(tensor.type as 'float16', pool, [numBlocks, pageSize, K, dim])
  }
  return { kPool: scatter(k), vPool: scatter(v), blockTable: int32(table, [lengths.length, maxBlocks]), row }
}
