/** Rotation of vectors in f64, slow and obvious: for tests and rare moves of stored keys. Models use the kernels. */
import { checkInteger, checkKeys, describe } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import { checkFloat32 } from './check-arrays.ts'

/** For each token and pair, how far to turn. */
export interface RotationTable {
  /** `[T, R]` */
  readonly cos: Float32Array
  /** `[T, R]` */
  readonly sin: Float32Array
}

export interface RotateOptions {
  /** Pairs (2i, 2i + 1) instead of (i, i + R). */
  readonly interleaved?: boolean
  /** Undo what the same table did, its attention factor included. */
  readonly inverse?: boolean
}

/**
 * Rotates the first 2 R components of each head in place; the others stay.
 * @param vectors `[T, heads, D]`
 * @throws KvasirError `invalid-argument` for sizes that don't fit together, other arrays, or a table of zeros that nothing
 * undoes; nothing is changed then
 */
export function rotateVectors(
  vectors: Float32Array | Float64Array,
  table: RotationTable & { readonly numTokens: number; readonly numHeads: number; readonly headDim: number },
  options: RotateOptions = {},
): void {
  checkKeys('positions', 'rotateVectors', options, ['interleaved', 'inverse'])
  for (const name of ['interleaved', 'inverse'] as const) {
    const { [name]: flag = false } = options
    if (typeof flag === 'boolean') continue
    throw invalidArgument('positions', `expected true or false for ${name}, got ${describe(flag)}`)
  }
  checkArrays(vectors, table)
  const { cos, sin, numTokens, numHeads, headDim } = table
  const pairs = checkSizes(vectors, table)
  if (options.inverse) checkInvertible(table)
  for (let t = 0; t < numTokens; t++) {
    for (let i = 0; i < pairs; i++) {
      const turn = angleOf(cos[t * pairs + i] as number, sin[t * pairs + i] as number, options.inverse === true)
      for (let head = 0; head < numHeads; head++) {
        const base = (t * numHeads + head) * headDim
        const [first, second] = options.interleaved ? [2 * i, 2 * i + 1] : [i, i + pairs]
        turnPair(vectors, base + first, base + second, turn)
      }
    }
  }
}

interface Turn {
  readonly cos: number
  readonly sin: number
}

function turnPair(vectors: Float32Array | Float64Array, first: number, second: number, { cos, sin }: Turn): void {
  const [a, b] = [vectors[first] as number, vectors[second] as number]
  vectors[first] = a * cos - b * sin
  vectors[second] = b * cos + a * sin
}

/** The inverse of a turn that also scales, by the square root of cos^2 + sin^2. */
function angleOf(cos: number, sin: number, isInverse: boolean): Turn {
  if (!isInverse) return { cos, sin }
  const square = cos * cos + sin * sin
  return { cos: cos / square, sin: -sin / square }
}

function checkInvertible({ cos, sin }: RotationTable): void {
  if (cos.every((value, i) => Math.hypot(value, sin[i] as number) > 0)) return
  throw invalidArgument(
    'positions',
    'expected a rotation that can be undone, got a pair whose cos and sin are 0 or NaN',
  )
}

function checkArrays(vectors: unknown, table: RotationTable): void {
  if (!(vectors instanceof Float32Array || vectors instanceof Float64Array)) {
    const expected = 'a Float32Array or a Float64Array for vectors'
    throw invalidArgument('positions', `expected ${expected}, got ${describe(vectors)}`)
  }
  if (typeof table !== 'object' || table === null) {
    throw invalidArgument('positions', `expected { cos, sin, numTokens, numHeads, headDim }, got ${describe(table)}`)
  }
  // `interleaved` belongs to the options: here it would be passed over, and other pairs turned.
  checkKeys('positions', 'rotateVectors', table, ['cos', 'sin', 'numTokens', 'numHeads', 'headDim'])
  checkFloat32('cos', table.cos)
  checkFloat32('sin', table.sin)
}

/** @returns R */
function checkSizes(
  vectors: Float32Array | Float64Array,
  { cos, sin, numTokens, numHeads, headDim }: Parameters<typeof rotateVectors>[1],
): number {
  checkInteger('positions', 'numTokens', numTokens, 0)
  checkInteger('positions', 'numHeads', numHeads, 1)
  checkInteger('positions', 'headDim', headDim, 1)
  const size = numTokens * numHeads * headDim
  if (vectors.length !== size) {
    throw invalidArgument('positions', `expected ${size} numbers in vectors, got ${vectors.length}`)
  }
  if (sin.length !== cos.length) {
    throw invalidArgument('positions', `expected ${cos.length} numbers in sin, as in cos, got ${sin.length}`)
  }
  const pairs = numTokens === 0 ? 0 : cos.length / numTokens
  if (Number.isInteger(pairs) && 2 * pairs <= headDim) return pairs
  const most = numTokens * Math.floor(headDim / 2)
  throw invalidArgument(
    'positions',
    `expected a multiple of ${numTokens} up to ${most} numbers in cos, got ${cos.length}`,
  )
}
