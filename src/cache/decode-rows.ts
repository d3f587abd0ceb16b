/** Stored rows as f32, for policies that look at keys and values; kernels read storage by themselves. */
import type { StorageArray, StorageType } from '../kernels/index.ts'
import { bf16ToF32 } from '../tensor/bfloat16.ts'
import { f16ToF32 } from '../tensor/float16.ts'

/** Every f16 widened, made when first needed: a look-up is several times faster than the arithmetic. */
let halves: Float32Array | undefined

function widenedHalves(): Float32Array {
  halves ??= Float32Array.from({ length: 65536 }, (_, i) => f16ToF32(i))
  return halves
}

/** Rows of `[rows, D]`, one after the other: `into` is `[rows.length, D]`. */
export function decodeRows(plane: StorageArray, dtype: StorageType, rows: Int32Array, into: Float32Array): void {
  const dim = into.length / rows.length
  for (let n = 0; n < rows.length; n++) {
    const start = (rows[n] as number) * dim
    if (dtype === 'f32') into.set((plane as Float32Array).subarray(start, start + dim), n * dim)
    else if (dtype === 'f16') widenF16(plane as Uint16Array, start, into, n * dim, dim)
    else widenBf16(plane as Uint16Array, start, into, n * dim, dim)
  }
}

function widenF16(from: Uint16Array, start: number, into: Float32Array, at: number, count: number): void {
  const table = widenedHalves()
  for (let d = 0; d < count; d++) into[at + d] = table[from[start + d] as number] as number
}

function widenBf16(from: Uint16Array, start: number, into: Float32Array, at: number, count: number): void {
  for (let d = 0; d < count; d++) into[at + d] = bf16ToF32(from[start + d] as number)
}
