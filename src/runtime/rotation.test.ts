/** Whether config.json gives the numbers of a graph's table: one number of a million that differs must be seen. */
import { expect, test } from 'vitest'
import type { GraphTable } from '../onnx/index.ts'
import { layerRotaryEncodings } from '../positions/index.ts'
import { agrees } from './rotation.ts'

const [rows, pairs] = [5000, 8]
const encoding = layerRotaryEncodings({ model_type: 'llama', rope_theta: 10_000 }, 1, [2 * pairs])[0]!
const { inverseFrequencies } = encoding.at(1)

/** @param angle of a row and a frequency */
function tableOf(angle: (row: number, frequency: number) => number): GraphTable {
  const angles = Float64Array.from({ length: rows * pairs }, (_, at) =>
    angle(Math.floor(at / pairs), inverseFrequencies[at % pairs]!),
  )
  const [cos, sin] = [Float32Array.from(angles, Math.cos), Float32Array.from(angles, Math.sin)]
  return { cos, sin, rows, pairs, isInterleaved: false, isHalf: false }
}

test('the numbers themselves agree, and so do those of exporters that compute angles in f32', () => {
  expect(
    agrees(
      encoding,
      tableOf((row, frequency) => row * frequency),
    ),
  ).toBe(true)
  expect(
    agrees(
      encoding,
      tableOf((row, frequency) => Math.fround(row * Math.fround(frequency))),
    ),
  ).toBe(true)
})

test.each([
  [0, 0],
  [127, 3],
  [128, 7],
  [4999, 0],
  [4999, 7],
])('a number that differs is seen: row %i, column %i', (row, column) => {
  for (const wrong of [2e-4, Number.NaN]) {
    const table = tableOf((at, frequency) => at * frequency)
    table.sin[row * pairs + column]! += wrong
    expect(agrees(encoding, table)).toBe(false)
    const other = tableOf((at, frequency) => at * frequency)
    other.cos[row * pairs + column]! += wrong
    expect(agrees(encoding, other)).toBe(false)
  }
})

test('other frequencies and shorter pairs do not agree', () => {
  expect(
    agrees(
      encoding,
      tableOf((row, frequency) => row * frequency * 1.001),
    ),
  ).toBe(false)
  expect(agrees(encoding, { ...tableOf((row, frequency) => row * frequency), isInterleaved: true })).toBe(false)
})
