/** Ridge regression in closed form. */
import { invalidArgument } from '../../src/tensor/error.ts'
import type { Fitted } from './fitted.ts'
import type { Samples } from './samples.ts'
import { standardise, toPlain } from './standardise.ts'

/** Of the number of samples, added to the diagonal: features of mean square 1 shrink by a thousandth. */
const ridge = 1e-3

/** @throws KvasirError `invalid-argument` for fewer samples than features */
export function fitLinear(samples: Samples): Fitted {
  const standard = standardise(samples)
  const { rows, targets, weights, numFeatures: F, targetMean } = standard
  if (samples.count < 2 * F) {
    throw invalidArgument('eval', `expected a longer text: ${2 * F} tokens or more to learn from, got ${samples.count}`)
  }
  const matrix = new Float64Array(F * F)
  const vector = new Float64Array(F)
  for (let n = 0; n < samples.count; n++) {
    const weight = weights[n] as number
    for (let a = 0; a < F; a++) {
      const value = weight * (rows[n * F + a] as number)
      vector[a]! += value * (targets[n] as number)
      for (let b = 0; b <= a; b++) matrix[a * F + b]! += value * (rows[n * F + b] as number)
    }
  }
  for (let a = 0; a < F; a++) matrix[a * F + a]! += ridge * samples.count
  const { weight, bias } = toPlain(standard, solve(matrix, vector))
  return { hidden: 0, weight, bias: Float32Array.of(bias + targetMean), output: new Float32Array(0) }
}

/** Solves A x = b for a positive definite A, of which the lower triangle is given, by Cholesky's method. Overwrites A. */
export function solve(matrix: Float64Array, vector: Float64Array): Float64Array {
  const size = vector.length
  const at = (row: number, column: number): number => matrix[row * size + column] as number
  const x = vector.slice()
  for (let i = 0; i < size; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = at(i, j)
      for (let k = 0; k < j; k++) sum -= at(i, k) * at(j, k)
      matrix[i * size + j] = i === j ? Math.sqrt(sum) : sum / at(j, j)
    }
  }
  for (let i = 0; i < size; i++) {
    for (let k = 0; k < i; k++) x[i]! -= at(i, k) * x[k]!
    x[i]! /= at(i, i)
  }
  for (let i = size - 1; i >= 0; i--) {
    for (let k = i + 1; k < size; k++) x[i]! -= at(k, i) * x[k]!
    x[i]! /= at(i, i)
  }
  return x
}
