import { expect, test } from 'vitest'
import { fillRotaryTable, layerRotaryEncodings, rotaryEncoding } from './index.ts'

const table = rotaryEncoding({}, 8).at(10)

test('tables that are too short, and positions that are none, are refused', () => {
  const [short, whole] = [new Float32Array(7), new Float32Array(8)]
  const expected = 'expected at least 8 numbers in'
  expect(() => fillRotaryTable(table, [0, 5], short, whole)).toThrow(`${expected} cos, 4 for each position, got 7`)
  expect(() => fillRotaryTable(table, [0, 5], whole, short)).toThrow(`${expected} sin, 4 for each position, got 7`)
  expect(() => fillRotaryTable(table, [0, Number.NaN], whole, whole.slice())).toThrow('for positions[1], got NaN')
})

test('what is no config.json is refused', () => {
  const expected = 'expected an object with the options of a model, got'
  expect(() => rotaryEncoding(undefined as never, 8)).toThrow(`${expected} undefined`)
  expect(() => layerRotaryEncodings(null as never, 2, 8)).toThrow(`${expected} null`)
})
