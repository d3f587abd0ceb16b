/** Whole arrays of f16 or bf16 to f32. Exact. */
import type { FloatArray, FloatType } from '../kernels/index.ts'
import { f16ToF32 } from '../tensor/float16.ts'

let halves: Float32Array | undefined

/** The numbers as f32: a new array, or `data` itself when it is f32. */
export function widen(data: FloatArray, storage: FloatType): Float32Array {
  if (data instanceof Float32Array) return data
  const wide = new Float32Array(data.length)
  if (storage === 'bf16') {
    const bits = new Uint32Array(wide.buffer)
    for (let i = 0; i < data.length; i++) bits[i] = (data[i] as number) << 16
    return wide
  }
  // All 65,536 values in a table: 256 KiB, and ten times as fast as working each out.
  halves ??= Float32Array.from({ length: 65536 }, (_, half) => f16ToF32(half))
  for (let i = 0; i < data.length; i++) wide[i] = halves[data[i] as number] as number
  return wide
}
