/** What rows of storage look like, and reading and writing them number by number: slow, for the reference and for tests. */
import { bf16ToF32, f32ToBf16 } from '../tensor/bfloat16.ts'
import { f16ToF32, f32ToF16 } from '../tensor/float16.ts'
import {
  dequantizeRow,
  isQuantized,
  quantizedFormats,
  quantizedRowBytes,
  quantizeRow,
} from '../tensor/quantized-row.ts'
import type { FloatArray, FloatType, KeyValueSegment, QuantizedType, StorageArray, StorageType } from './contract.ts'

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
} as const satisfies Record<FloatType, StorageCodec>

export const floatTypes = Object.keys(storageCodecs) as FloatType[]
export const storageTypes: readonly StorageType[] = [
  ...floatTypes,
  ...(Object.keys(quantizedFormats) as QuantizedType[]),
]

/** Bytes of a row of `dim` numbers. Rows of f16 and bf16 begin at two, all others at four bytes. */
export function rowBytes(dim: number, storage: StorageType): number {
  return isQuantized(storage) ? quantizedRowBytes(dim, storage) : dim * storageCodecs[storage].bytes
}

/** Elements of a row in the array of its type: `dim` numbers, or `rowBytes` bytes. */
export function rowLength(dim: number, storage: StorageType): number {
  return isQuantized(storage) ? quantizedRowBytes(dim, storage) : dim
}

/** What an array holds, unless it says so itself. */
export function storageOf(array: FloatArray | undefined, storage?: FloatType): FloatType
export function storageOf(array: StorageArray | undefined, storage?: StorageType): StorageType
export function storageOf(array: StorageArray | undefined, storage?: StorageType): StorageType {
  if (storage) return storage
  if (array instanceof Uint8Array) return 'int8'
  return array instanceof Uint16Array ? 'f16' : 'f32'
}

/** Of keys and values, each with its own. */
export function storagesOf({ keys, values, storage, keyStorage = storage, valueStorage = storage }: KeyValueSegment) {
  return { keyStorage: storageOf(keys, keyStorage), valueStorage: storageOf(values, valueStorage) }
}

/** f32 values in the array of `storage`, rounded to nearest even. */
export function toStorage(values: Float32Array, storage: FloatType): FloatArray {
  return storage === 'f32' ? values : Uint16Array.from(values, storageCodecs[storage].write)
}

/** An array for `rows` rows, all bits zero. */
export function allocateRows(rows: number, dim: number, storage: StorageType): StorageArray {
  const length = rows * rowLength(dim, storage)
  if (isQuantized(storage)) return new Uint8Array(length)
  return storage === 'f32' ? new Float32Array(length) : new Uint16Array(length)
}

/** Writes row `row` of an array, rounded to nearest even. */
export function writeRow(array: StorageArray, storage: StorageType, row: number, values: ArrayLike<number>): void {
  const at = row * rowLength(values.length, storage)
  if (isQuantized(storage)) quantizeRow(values, storage, array as Uint8Array, at)
  else for (let d = 0; d < values.length; d++) array[at + d] = storageCodecs[storage].write(values[d] as number)
}

/** Reads the numbers of row `row`, exactly. */
export function readRow(array: StorageArray, storage: StorageType, row: number, dim: number): Float64Array {
  const values = new Float64Array(dim)
  const at = row * rowLength(dim, storage)
  if (isQuantized(storage)) dequantizeRow(array as Uint8Array, at, storage, values)
  else for (let d = 0; d < dim; d++) values[d] = storageCodecs[storage].read(array[at + d] as number)
  return values
}
