/** Tensors that hold keys and values, or queries as well, token by token: `[..., 2 or 3, heads, D]`. */
import type { FloatArray, KeyValueSegment } from '../kernels/index.ts'
import { allocate, type FloatData } from './tensors.ts'

interface Packed {
  readonly data: FloatArray
  /** 2: k, v; 3: q, k, v */
  readonly parts: 2 | 3
  /** heads * D */
  readonly row: number
}

type PackedKeys = Pick<KeyValueSegment, 'keys' | 'values' | 'layout' | 'capacity' | 'pages' | 'pageSize'>

/**
 * K and V stay where they lie: to the kernels they are pages of one token, every second or third row of the tensor.
 * @param longest the most tokens that are asked for at once
 * @returns keys and values of `count` tokens from `first` on
 */
export function packedKeys({ data, parts, row }: Packed, longest: number) {
  const pages = Int32Array.from({ length: longest }, (_, j) => parts * j)
  return (first: number, count: number): PackedKeys => {
    const [from, to] = [(parts * (first + 1) - 2) * row, parts * (first + count) * row]
    const keys = data.subarray(Math.min(from, to), to)
    const values = data.subarray(Math.min(from + row, to), to)
    return { keys, values, layout: 'token-major', capacity: count, pages, pageSize: 1 }
  }
}

/** The queries of `[tokens, 3, H, D]`, copied: kernels take them one after the other. */
export function unpackQueries({ data, storage }: Omit<FloatData, 'dims'>, row: number): FloatArray {
  const query = allocate(storage, data.length / 3)
  for (let at = 0; at < query.length; at += row) query.set(data.subarray(3 * at, 3 * at + row), at)
  return query
}
