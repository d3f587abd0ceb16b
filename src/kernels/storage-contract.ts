/** How rows of K and V are stored, where they lie, and the memory that holds them. */
import type { QuantizedType } from '../tensor/quantized-row.ts'

export type { QuantizedType } from '../tensor/quantized-row.ts'

/** Numbers one by one: IEEE binary32 in a Float32Array; binary16 or bfloat16 as bits in a Uint16Array. */
export type FloatType = 'f32' | 'f16' | 'bf16'

/** f32, or the bits of f16 or bf16. */
export type FloatArray = Float32Array | Uint16Array

/**
 * How rows of K and V are stored: number by number, or quantized, as runs of `rowBytes` bytes in a Uint8Array that end
 * with the scale of the row (src/tensor/quantized-row.ts).
 */
export type StorageType = FloatType | QuantizedType

/** Rows of K or V: `[rows, D]` numbers, or `[rows, rowBytes]` bytes. */
export type StorageArray = FloatArray | Uint8Array

/**
 * Where storage row r of KV head k lies: `head-major` `[K, C, D]`; `token-major` `[C, K, D]`; `shared` `[C, D]`, a pool
 * from which heads take rows, by `rows` or `pages`.
 */
export type RowLayout = 'head-major' | 'token-major' | 'shared'

/**
 * Memory that a backend can read without a copy. Views are made on demand because WebAssembly memory moves when it
 * grows: take a view, use it, don't keep it across an `alloc`.
 */
export interface Memory {
  readonly byteLength: number
  readonly f32: Float32Array
  readonly f64: Float64Array
  readonly u16: Uint16Array
  readonly u8: Uint8Array
  readonly i32: Int32Array
  /** Gives the bytes back; using a view afterwards is an error of the caller. */
  free(): void
}
