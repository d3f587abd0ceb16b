import { expect, test } from 'vitest'
import { DeviationSum, divergence } from './deviation.ts'

test('divergence is the sum over p of p log(p / q)', () => {
  const [p, q] = [
    [0.5, 0.25, 0.25],
    [0.25, 0.25, 0.5],
  ]
  const logits = (row: readonly number[], shift: number) => Float32Array.from(row, (value) => Math.log(value) + shift)
  expect(divergence(logits(p!, 3), logits(q!, -700))).toBeCloseTo(0.25 * Math.log(2), 4)
  expect(divergence(logits(p!, 80), logits(p!, 80))).toBeCloseTo(0, 6)
})

test('what a model is sure of and the other rules out costs what its logits say, not infinity', () => {
  expect(divergence(Float32Array.of(200, 0), Float32Array.of(0, 200))).toBeCloseTo(200, 3)
})

test('NaN logits are seen in the mean', () => {
  const sum = new DeviationSum()
  sum.add(Float32Array.of(1, 0), Float32Array.of(Number.NaN, 0))
  expect(sum.result().meanKl).toBeNaN()
})

test('shares are of what was added', () => {
  const sum = new DeviationSum()
  expect(sum.add(Float32Array.of(0, 1, 0), Float32Array.of(0, 2, 1))).toBe(1)
  expect(sum.add(Float32Array.of(0, 1, 0), Float32Array.of(3, 2, 1))).toBe(0)
  for (const isCorrect of [true, false, true]) sum.addAnswer(isCorrect)
  expect(sum.result()).toMatchObject({ positions: 2, topAgreement: 0.5, questions: 3, correct: 2 })
})
