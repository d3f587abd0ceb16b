/** Tokens of the naive layer: what came, what storage made of it, and where the key stands. */
import type { StorageType } from '../../kernels/index.ts'
import { allocateRows, readRow, writeRow } from '../../kernels/storage.ts'
import { hadamard } from '../../tensor/hadamard.ts'

export interface NaiveToken {
  readonly position: number
  /** As they came. */
  readonly key: Float64Array
  readonly value: Float64Array
  readonly bias: number
  /** NaN: not ranked yet. */
  score: number
  /** Attention of all queries since it came. */
  mass: number
  /** Where its key stands on the axis of rotations. */
  number: number
  /** Its key has been rotated anew since it came. */
  hasMoved: boolean
  /** Its copy in f16 is gone. */
  hasLeft: boolean
}

/** Radians a position, `[R]`; pairs (i, i + R). */
export type Frequencies = readonly number[]

export interface NaiveFormat {
  readonly storage: StorageType
  readonly isTransformed: boolean
}

/** What storage makes of a row. */
export function stored(row: Float64Array, { storage, isTransformed }: NaiveFormat): Float64Array {
  const values = row.slice()
  if (isTransformed) hadamard(values)
  const place = allocateRows(1, row.length, storage)
  writeRow(place, storage, 0, values)
  const read = readRow(place, storage, 0, row.length)
  if (isTransformed) hadamard(read)
  return read
}

export function turn(vector: Float64Array, frequencies: Frequencies, position: number): Float64Array {
  const turned = vector.slice()
  for (const [i, frequency] of frequencies.entries()) {
    const [c, s] = [Math.cos(position * frequency), Math.sin(position * frequency)]
    const [a, b] = [vector[i] as number, vector[i + frequencies.length] as number]
    turned[i] = a * c - b * s
    turned[i + frequencies.length] = b * c + a * s
  }
  return turned
}

export function dot(a: Float64Array, b: Float64Array): number {
  return a.reduce((sum, value, d) => sum + value * (b[d] as number), 0)
}

export function norm(a: Float64Array): number {
  return Math.sqrt(dot(a, a))
}
