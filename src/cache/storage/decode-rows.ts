/** Stored rows as f32, for policies that look at keys and values; kernels read storage by themselves. */
import type { StorageArray, StorageType } from '../../kernels/index.ts'
import { f16ToF32 } from '../../tensor/float16.ts'
import { hadamard } from '../../tensor/hadamard.ts'
import { dequantizeRow, isQuantized, quantizedRowBytes } from '../../tensor/quantized-row.ts'

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
  const bits = new Int32Array(into.buffer, into.byteOffset, into.length)
  for (let n = 0; n < rows.length; n++) {
    const row = rows[n] as number
    const [start, at] = [row * dim, n * dim]
    if (storage === 'f32') into.set((plane as Float32Array).subarray(start, start + dim), at)
    else if (storage === 'f16') widenF16(plane as Uint16Array, start, { into, bits, at }, dim)
    else if (storage === 'bf16') widenBf16(plane as Uint16Array, start, { into, bits, at }, dim)
    else if (isQuantized(storage)) {
      dequantizeRow(plane as Uint8Array, row * quantizedRowBytes(dim, storage), storage, into.subarray(at, at + dim))
    }
    if (format.hadamard) hadamard(into.subarray(at, at + dim))
  }
}

/** Where a row goes: f32 from `at` on, and the same memory as bits. */
interface Place {
  readonly into: Float32Array
  readonly bits: Int32Array
  readonly at: number
}

/** Numbers with a leading one need no more than another bias of their exponent; the few others go the long way. */
function widenF16(from: Uint16Array, start: number, { into, bits, at }: Place, count: number): void {
  for (let d = 0; d < count; d++) {
    const half = from[start + d] as number
    const magnitude = half & 0x7fff
    if (magnitude >= 0x400 && magnitude < 0x7c00)
      bits[at + d] = ((half & 0x8000) << 16) | ((magnitude << 13) + 0x38000000)
    else into[at + d] = f16ToF32(half)
  }
}

function widenBf16(from: Uint16Array, start: number, { bits, at }: Place, count: number): void {
  for (let d = 0; d < count; d++) bits[at + d] = (from[start + d] as number) << 16
}
