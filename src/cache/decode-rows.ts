/** Stored rows as f32, for policies that look at keys and values; kernels read storage by themselves. */
import type { StorageArray, StorageType } from '../kernels/index.ts'
import { bf16ToF32 } from '../tensor/bfloat16.ts'
import { f16ToF32 } from '../tensor/float16.ts'
import { hadamard } from '../tensor/hadamard.ts'
import { dequantizeRow, isQuantized, quantizedRowBytes } from '../tensor/quantized-row.ts'

/** Every f16 widened, made when first needed: a look-up is several times faster than the arithmetic. */
let halves: Float32Array | undefined

function widenedHalves(): Float32Array {
  halves ??= Float32Array.from({ length: 65536 }, (_, i) => f16ToF32(i))
  return halves
}

export interface RowFormat {
  /** D */
  readonly dim: number
  readonly storage: StorageType
  /** Rows are stored transformed (src/tensor/hadamard.ts). */
  readonly hadamard: boolean
}

/** Rows of `[rows, D]`, one after the other and as they were before any transform: `into` is `[rows.length, D]`. */
export function decodeRows(plane: StorageArray, format: RowFormat, rows: Int32Array, into: Float32Array): void {
  const { dim, storage } = format
  for (let n = 0; n < rows.length; n++) {
    const row = rows[n] as number
    const start = row * dim
    if (storage === 'f32') into.set((plane as Float32Array).subarray(start, start + dim), n * dim)
    else if (storage === 'f16') widenF16(plane as Uint16Array, start, into, n * dim, dim)
    else if (storage === 'bf16') widenBf16(plane as Uint16Array, start, into, n * dim, dim)
    else if (isQuantized(storage)) {
      const at = row * quantizedRowBytes(dim, storage)
      dequantizeRow(plane as Uint8Array, at, storage, into.subarray(n * dim, (n + 1) * dim))
    }
    if (format.hadamard) hadamard(into.subarray(n * dim, (n + 1) * dim))
  }
}

function widenF16(from: Uint16Array, start: number, into: Float32Array, at: number, count: number): void {
  const table = widenedHalves()
  for (let d = 0; d < count; d++) into[at + d] = table[from[start + d] as number] as number
}

function widenBf16(from: Uint16Array, start: number, into: Float32Array, at: number, count: number): void {
  for (let d = 0; d < count; d++) into[at + d] = bf16ToF32(from[start + d] as number)
}
