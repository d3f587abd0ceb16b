/** Reading and writing single stored numbers: slow, for the reference and for tests. */
import { bf16ToF32, f32ToBf16 } from '../tensor/bfloat16.ts'
import { f16ToF32, f32ToF16 } from '../tensor/float16.ts'
import type { StorageArray, StorageType } from './contract.ts'

interface StorageCodec {
  /** Bytes of a number. */
  readonly bytes: number
  readonly read: (stored: number) => number
  readonly write: (value: number) => number
}

export const storageCodecs = {
  f32: { bytes: 4, read: (value) => value, write: Math.fround },
  f16: { bytes: 2, read: f16ToF32, write: f32ToF16 },
  bf16: { bytes: 2, read: bf16ToF32, write: f32ToBf16 },
} as const satisfies Record<StorageType, StorageCodec>

/** What an array holds, unless it says so itself. */
export function storageOf(array: StorageArray | undefined, storage?: StorageType): StorageType {
  return storage ?? (array instanceof Uint16Array ? 'f16' : 'f32')
}

/** f32 values in the array of `storage`, rounded to nearest even. */
export function toStorage(values: Float32Array, storage: StorageType): StorageArray {
  return storage === 'f32' ? values : Uint16Array.from(values, storageCodecs[storage].write)
}
