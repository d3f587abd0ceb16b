/** Stored rows as f32, for policies that look at keys and values; kernels read storage by themselves. */
import type { StorageArray, StorageType } from '../kernels/index.ts'
import { bf16ToF32 } from '../tensor/bfloat16.ts'
import { f16ToF32 } from '../tensor/float16.ts'

/** Every f16 widened, made when first needed: a look-up is several times faster than the arithmetic. */
let halves: Float32Array | undefined

function widenHalf(bits: number): number {
  halves ??= Float32Array.from({ length: 65536 }, (_, i) => f16ToF32(i))
  return halves[bits] as number
}

/** Row `row` of `[rows, into.length]`. */
export function decodeRow(plane: StorageArray, dtype: StorageType, row: number, into: Float32Array): void {
  const dim = into.length
  const start = row * dim
  if (dtype === 'f32') {
    into.set((plane as Float32Array).subarray(start, start + dim))
    return
  }
  const widen = dtype === 'f16' ? widenHalf : bf16ToF32
  for (let d = 0; d < dim; d++) into[d] = widen(plane[start + d] as number)
}
