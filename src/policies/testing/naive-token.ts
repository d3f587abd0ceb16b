/** Tokens of the naive layer: what came, what storage made of it, and where the key stands. */
import type { FloatType as StorageType } from '../../kernels/index.ts'
import { storageCodecs } from '../../kernels/storage.ts'

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
}

/** Radians a position, `[R]`; pairs (i, i + R). */
export type Frequencies = readonly number[]

/** What storage makes of a row. */
export function stored(row: Float64Array, storage: StorageType): Float64Array {
  const { read, write } = storageCodecs[storage]
  return row.map((value) => read(write(value)))
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
