/** What counts as the same model, on hand-made logits: two steps over four tokens, whose range is 4. */
import { expect, test } from 'vitest'
import { type Choices, checkAgreement } from './agreement.ts'

const expected: Choices = { logits: Float32Array.of(-2, 0, 1.99, 2, 2, 1, 0, -2), tokens: [3, 0] }
const withLogit = (index: number, value: number): Float32Array =>
  expected.logits.map((old, i) => (i === index ? value : old))
const check = (got: Partial<Choices>, tolerance = 0.01) =>
  checkAgreement('kvasir', { ...expected, ...got }, expected, tolerance)

test('the same logits and tokens agree', () => {
  expect(check({})).toEqual({ candidate: 'kvasir', tokens: 2, equalTokens: 2, difference: 0, tolerance: 0.01 })
})

test('differences are told as a share of the range, up to the tolerance', () => {
  expect(check({ logits: withLogit(5, 1.03) }).difference).toBeCloseTo(0.0075, 5)
  expect(() => check({ logits: withLogit(5, 1.05) })).toThrow(
    /kvasir computes something else: a logit of step 1 is 0\.012\d* of their range away, expected at most 0\.01/,
  )
})

test('numbers that are none disagree, wherever they are', () => {
  for (let i = 0; i < 8; i++)
    expect(() => check({ logits: withLogit(i, Number.NaN) }), `${i}`).toThrow('computes something else')
})

test('another token is forgiven where the two are as near as rounding', () => {
  expect(check({ tokens: [2, 0] }).equalTokens).toBe(1)
  expect(() => check({ tokens: [2, 0] }, 0.001)).toThrow('expected token 3 at step 0, got 2')
  expect(() => check({ tokens: [3, 1] })).toThrow('expected token 0 at step 1, got 1')
})

test('fewer steps or tokens disagree', () => {
  expect(() => check({ logits: expected.logits.subarray(4) })).toThrow('expected 8 logits of 2 steps, got 4 of 2')
  expect(() => check({ tokens: [3] })).toThrow('expected 8 logits of 2 steps, got 8 of 1')
})
