import { expect, it } from 'vitest'
import { alibiSlopes } from './index.ts'
import { expectClose } from './testing/helpers.ts'

const eight = [0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625]

it('has the published slopes', () => {
  expect([...alibiSlopes(8)]).toEqual(eight)
  expect([...alibiSlopes(6)]).toEqual([0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125])
  expectClose(alibiSlopes(12), [...eight, Math.SQRT1_2, 0.353553391, 0.176776695, 0.0883883476], 1e-7)
  const twenty = alibiSlopes(20)
  expectClose([twenty[0]!, twenty[15]!], [Math.SQRT1_2, 0.00390625], 1e-7)
  expectClose(twenty.subarray(16), [0.840896415, 0.594603558, 0.420448208, 0.297301779], 1e-7)
  const many = alibiSlopes(71)
  expectClose([many[0]!, many[70]!], [0.917004043, 0.569394317], 1e-7)
  expect([...alibiSlopes(1)]).toEqual([1 / 256])
})

it('has the slopes that the rule of MPT gives, for every number of heads', () => {
  for (let heads = 1; heads <= 130; heads++) {
    for (const maxBias of [8, 16]) {
      const power = 2 ** Math.ceil(Math.log2(heads))
      const all = Array.from({ length: power }, (_, i) => 2 ** (-(i + 1) * (maxBias / power)))
      const odd = all.filter((_, i) => i % 2 === 1)
      const even = all.filter((_, i) => i % 2 === 0)
      expectClose(alibiSlopes(heads, maxBias), power === heads ? all : [...odd, ...even].slice(0, heads), 1e-7)
    }
  }
})

it('refuses numbers of heads and biases that make no sense', () => {
  expect(() => alibiSlopes(0)).toThrow('expected an integer in 1..65536 for numHeads, got 0')
  expect(() => alibiSlopes(1.5)).toThrow('for numHeads, got 1.5')
  for (const bias of [0, -8, Number.NaN, Number.POSITIVE_INFINITY]) {
    expect(() => alibiSlopes(8, bias)).toThrow(`expected a number above 0 for maxBias, got ${bias}`)
  }
})
