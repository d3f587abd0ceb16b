/**
 * The tensors of a case: made from a seed, so that each process makes the same ones. Their numbers are multiples of
 * 1/128 from -1 to 1, which f32, f16 and bf16 all hold exactly: whatever the type, all compute with the same numbers.
 * Quantized rows hold what is nearest to them, with a scale as though the largest number were 1.
 * Queries are eight times as large, so that the softmax is far from flat and wrong scores show in the result.
 */
import { createRandom } from '../../src/kernels/cases.ts'
import type { FloatArray, FloatType, QuantizedType, StorageArray, StorageType } from '../../src/kernels/index.ts'
import { allocateRows, rowBytes, storageCodecs } from '../../src/kernels/storage.ts'
import { isQuantized, quantizedFormats, quantizeRow } from '../../src/tensor/quantized-row.ts'

const numLevels = 256
const queryScale = 8

export const seeds = { query: 1, key: 2, value: 3 } as const

/** The tensor `name` of any case: numbers in the order of memory, `[T, H, D]`, `[K, S, D]` or `[N, K, D]`. */
function fillInput(target: FloatArray, dtype: FloatType, name: keyof typeof seeds): void {
  const scale = name === 'query' ? queryScale : 1
  const codes = Float64Array.from({ length: numLevels }, (_, i) =>
    storageCodecs[dtype].write((scale * (i - numLevels / 2)) / (numLevels / 2)),
  )
  const random = createRandom(seeds[name])
  for (let i = 0; i < target.length; i += 4) {
    // Four numbers from the four bytes of one: tensors have up to hundreds of millions.
    const bits = (random() * 2 ** 32) >>> 0
    for (let n = 0; n < 4 && i + n < target.length; n++) target[i + n] = codes[(bits >>> (8 * n)) & 255] as number
  }
}

export function createInput(length: number, dtype: FloatType, name: keyof typeof seeds): FloatArray {
  const target = dtype === 'f32' ? new Float32Array(length) : new Uint16Array(length)
  fillInput(target, dtype, name)
  return target
}

/** Rows of K or V: as `fillInput` where numbers are stored one by one. */
export function fillRows(target: StorageArray, dim: number, dtype: StorageType, name: 'key' | 'value'): void {
  if (isQuantized(dtype)) fillQuantized(target as Uint8Array, dim, dtype, name)
  else fillInput(target as FloatArray, dtype, name)
}

export function createRows(rows: number, dim: number, dtype: StorageType, name: 'key' | 'value'): StorageArray {
  const target = allocateRows(rows, dim, dtype)
  fillRows(target, dim, dtype, name)
  return target
}

/** Random codes with the same scale in every row: quantizing row by row would take minutes. */
function fillQuantized(target: Uint8Array, dim: number, dtype: QuantizedType, name: 'key' | 'value'): void {
  const { largest, encode } = quantizedFormats[dtype]
  const levels = Uint8Array.from({ length: numLevels }, (_, i) =>
    encode((largest * (i - numLevels / 2)) / (numLevels / 2)),
  )
  const row = new Uint8Array(rowBytes(dim, dtype))
  // A row with ones has the scale, and the zeros past its codes, that all rows get.
  quantizeRow(new Float32Array(dim).fill(1), dtype, row, 0)
  const numBytes = dtype === 'int4' ? dim >> 1 : dim
  const random = createRandom(seeds[name])
  for (let at = 0; at < target.length; at += row.length) {
    target.set(row, at)
    for (let i = 0; i < numBytes; i++) {
      const bits = (random() * 2 ** 16) >>> 0
      const low = levels[bits & 255] as number
      target[at + i] = dtype === 'int4' ? low | ((levels[bits >>> 8] as number) << 4) : low
    }
  }
}

/** What an array of results holds, in f32. */
export function toFloat32(array: FloatArray, dtype: FloatType): Float32Array {
  if (array instanceof Float32Array) return array
  const table = Float32Array.from({ length: 65536 }, (_, bits) => storageCodecs[dtype].read(bits))
  return Float32Array.from(array, (bits) => table[bits] as number)
}
