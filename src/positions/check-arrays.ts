/** Checks of the arrays that the functions of this folder read and write: nothing is written into what can't hold it. */
import { checkFinite, describe } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'

export function checkFloat32(name: string, array: unknown): asserts array is Float32Array {
  if (array instanceof Float32Array) return
  throw invalidArgument('positions', `expected a Float32Array for ${name}, got ${describe(array)}`)
}

/** Throws unless all are finite numbers. */
export function checkPositions(name: string, positions: ArrayLike<number>): void {
  if (!Array.isArray(positions) && !ArrayBuffer.isView(positions)) {
    throw invalidArgument('positions', `expected a list of positions for ${name}, got ${describe(positions)}`)
  }
  for (let t = 0; t < positions.length; t++) {
    if (!Number.isFinite(positions[t])) checkFinite('positions', `${name}[${t}]`, positions[t])
  }
}
