/** What the tests of positions share. */
import { expect } from 'vitest'
import { fillRotaryTable, type RotaryEncoding, rotaryEncoding, rotateVectors } from '../index.ts'

type Config = Readonly<Record<string, unknown>>

/** Relative to each expected value, absolute below 1e-3 of it; NaN fails. */
export function expectClose(actual: ArrayLike<number>, expected: readonly number[], tolerance: number): void {
  expect(actual.length).toBe(expected.length)
  for (const [i, value] of expected.entries()) {
    const error = Math.abs(actual[i]! - value) / Math.max(Math.abs(value), 1e-12)
    expect(error <= tolerance, `${i}: ${actual[i]} instead of ${value}`).toBe(true)
  }
}

/** The inverse frequencies of a model, at a length. */
export function frequencies(config: Config, headDim: number, length = 1): Float64Array {
  return rotaryEncoding(config, headDim).at(length).inverseFrequencies
}

/** Compares some of them, given by pair, with published values, which have nine digits. */
export function expectFrequencies(actual: ArrayLike<number>, expected: Readonly<Record<number, number>>): void {
  const pairs = Object.keys(expected).map(Number)
  expectClose(
    pairs.map((pair) => actual[pair]!),
    pairs.map((pair) => expected[pair]!),
    6e-9,
  )
}

/** One head, turned to a position of a sequence of `length` tokens. */
export function turn(
  vector: readonly number[],
  encoding: RotaryEncoding,
  position: number,
  length = position + 1,
): Float64Array {
  const [cos, sin] = [new Float32Array(encoding.pairs), new Float32Array(encoding.pairs)]
  fillRotaryTable(encoding.at(length), [position], cos, sin)
  const result = Float64Array.from(vector)
  const table = { cos, sin, numTokens: 1, numHeads: 1, headDim: vector.length }
  rotateVectors(result, table, { interleaved: encoding.pairing === 'interleaved' })
  return result
}
