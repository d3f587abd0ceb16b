import { expect, test } from 'vitest'
import { createRandom } from '../../src/runtime/random.ts'
import { fitHidden } from './fit-hidden.ts'
import { fitLinear, solve } from './fit-linear.ts'
import { type Fitted, scoreOf } from './fitted.ts'
import { Samples } from './samples.ts'

const F = 4

/** Samples of a head whose tokens have random features, and attention such that the targets are `target(features)`. */
function samplesOf(count: number, target: (features: Float32Array) => number, capacity = count): Samples {
  const random = createRandom(3)
  const samples = new Samples(F, capacity)
  const rows = Array.from({ length: count }, () =>
    Float32Array.from({ length: F }, (_, f) => (f + 1) * (random() - 0.3)),
  )
  samples.addAll(
    rows.map((row, token) => ({ token, value: target(row), weight: 0.5 + random() })),
    (token, out) => out.set(rows[token] as Float32Array),
  )
  return samples
}

/** Share of the variance of the targets that a score explains. */
function explained(fitted: Fitted, samples: Samples): number {
  const mean = samples.targets.reduce((a, b) => a + b, 0) / samples.count
  let [rest, all] = [0, 0]
  for (const [n, target] of samples.targets.entries()) {
    const score = scoreOf(fitted, samples.features.subarray(n * F, (n + 1) * F))
    rest += (target - score) ** 2
    all += (target - mean) ** 2
  }
  return 1 - rest / all
}

test('a linear target is found, constant features aside', () => {
  const samples = samplesOf(500, ([a, b, c]) => 3 + 2 * a! - b! + 0.5 * c!)
  const fitted = fitLinear(samples)
  expect(explained(fitted, samples)).toBeGreaterThan(0.999)
  expect(fitted.weight[0]).toBeCloseTo(2, 1)
  expect(fitted.weight[3]).toBeCloseTo(0, 1)
  expect(fitted.bias[0]).toBeCloseTo(3, 1)
})

test('a hidden layer finds what no line fits; the same seed gives the same numbers', () => {
  const bent = ([a, b]: Float32Array) => Math.abs(a!) * 4 - Math.max(0, b!)
  const samples = samplesOf(1500, bent)
  const options = { hidden: 8, epochs: 30, seed: 5 }
  const fitted = fitHidden(samples, options)
  expect(explained(fitLinear(samples), samples)).toBeLessThan(0.8)
  // The layer has no constant of its own: ranks don't need one.
  const shift = samples.targets.reduce((a, b) => a + b, 0) / samples.count
  const shifted = samplesOf(1500, (row) => bent(row) - shift)
  expect(explained(fitted, shifted)).toBeGreaterThan(0.95)
  expect(fitHidden(samples, options)).toEqual(fitted)
  expect(fitHidden(samples, { ...options, seed: 6 }).weight).not.toEqual(fitted.weight)
})

test('Cholesky solves positive definite systems', () => {
  const matrix = Float64Array.of(4, 0, 0, 2, 5, 0, -1, 1, 6) // lower triangle
  const x = solve(matrix, Float64Array.of(4 * 1 + 2 * 2 - 3, 2 * 1 + 5 * 2 + 3, -1 + 2 + 6 * 3))
  for (const [n, value] of [1, 2, 3].entries()) expect(x[n]).toBeCloseTo(value, 10)
})

test('too many samples are thinned evenly; too few are refused', () => {
  const thinned = samplesOf(1000, ([a]) => a!, 128)
  expect(thinned.count).toBeGreaterThan(60)
  expect(thinned.count).toBeLessThanOrEqual(128)
  const all = samplesOf(1000, ([a]) => a!)
  const stride = Math.ceil(1000 / 128)
  for (let n = 0; n < thinned.count; n++) expect(thinned.targets[n]).toBe(all.targets[n * stride])
  expect(() => fitLinear(samplesOf(7, ([a]) => a!))).toThrow('expected a longer text: 8 tokens')
})
