/**
 * The state of a cache, for writing it down and for building it anew. Each class shows its fields once, to a visitor:
 * one that counts bytes, one that writes them, or one that reads them back into a cache that was just made. So there is
 * one description of what a class consists of, and the three can't disagree.
 *
 * What is written is a run of values without names, little endian; both sides know what comes. Rows of K and V are
 * opaque bytes. Physical places (pages, capacities) are no part of it: the state of a paged cache fits a contiguous one.
 */
import { KvasirError } from '../../tensor/error.ts'

export interface Stateful {
  /** Shows every field; where the visitor reads, the object is new and takes the fields over. */
  visitState(visitor: StateVisitor): void
}

export interface StateVisitor {
  /** Whether fields are replaced by what was written. */
  readonly isReading: boolean
  /** What must be the same on both sides, such as a window; anything else is refused with both values. */
  fixed(name: string, value: string | number | boolean): void
  /** Returns the integer that holds from now on; one outside [min, max] is refused. */
  integer(name: string, value: number, min: number, max?: number): number
  /** Integers in place. */
  integers(name: string, values: Int32Array | Float64Array, min: number, max?: number): void
  /** Numbers in place, any of them, NaN too. */
  numbers(values: Float32Array | Float64Array): void
  /** Opaque bytes in place. */
  bytes(values: Uint8Array): void
  /** To be asked before room for `count` bytes is made: refused when there are not so many left. */
  expect(name: string, count: number): void
}

/** A state, or a file, that can't be what it says it is. */
export function invalidState(message: string): KvasirError {
  return new KvasirError('invalid-file', 'cache', message)
}

/** @throws KvasirError `invalid-file` unless `rows` are 0 .. rows.length - 1 in some order */
export function checkPermutation(name: string, rows: ArrayLike<number>): void {
  const seen = new Uint8Array(rows.length)
  for (let n = 0; n < rows.length; n++) {
    const row = rows[n] as number
    if (seen[row] !== 0) throw invalidState(`expected each row once in ${name}, got row ${row} again, or none of them`)
    seen[row] = 1
  }
}
