import { expect, test } from 'vitest'
import {
  fillRotaryTable,
  layerRotaryEncodings,
  layerTypes,
  rerotationTable,
  rotaryEncoding,
  rotatedLayers,
} from './index.ts'

const table = rotaryEncoding({}, 8).at(10)

test('tables that are too short, and positions that are none, are refused', () => {
  const [short, whole] = [new Float32Array(7), new Float32Array(8)]
  const expected = 'expected at least 8 numbers in'
  expect(() => fillRotaryTable(table, [0, 5], short, whole)).toThrow(`${expected} cos, 4 for each position, got 7`)
  expect(() => fillRotaryTable(table, [0, 5], whole, short)).toThrow(`${expected} sin, 4 for each position, got 7`)
  expect(() => fillRotaryTable(table, [0, Number.NaN], whole, whole.slice())).toThrow('for positions[1], got NaN')
  expect(() => fillRotaryTable(table, [0, '1' as never], whole, whole)).toThrow('for positions[1], got "1"')
  expect(() => fillRotaryTable(table, undefined as never, whole, whole)).toThrow('a list of positions for positions')
  expect(whole).toEqual(new Float32Array(8))
})

test('an encoding is no table, and an array of integers can not hold one', () => {
  const whole = new Float32Array(8)
  const encoding = rotaryEncoding({}, 8) as never
  expect(() => fillRotaryTable(encoding, [0], whole, whole)).toThrow('encoding.at(length) gives it, got an object')
  const integers = new Uint16Array(8) as never
  expect(() => fillRotaryTable(table, [0], integers, whole)).toThrow('a Float32Array for cos, got a Uint16Array')
})

test('moves from nowhere, and of keys that are gone, are refused', () => {
  const plain = rotaryEncoding({}, 8)
  expect(() => rerotationTable(plain, [Number.NaN], [2])).toThrow('a finite number for from[0], got NaN')
  expect(() => rerotationTable(plain, [1], [Number.POSITIVE_INFINITY])).toThrow('a finite number for to[0]')
  const lists = { short_factor: [1, 1, 1, 1], long_factor: [1, 1, 1, 1], short_mscale: 0 }
  const scaling = { rope_type: 'longrope', factor: 8, original_max_position_embeddings: 64, ...lists }
  const move = () => rerotationTable(rotaryEncoding({ rope_scaling: scaling }, 8), [1], [1], { from: 9, to: 99 })
  expect(move).toThrow('an attention factor above 0, got 0')
})

test('what is no config.json is refused', () => {
  const expected = 'expected an object with the options of a model, got'
  expect(() => rotaryEncoding(undefined as never, 8)).toThrow(`${expected} undefined`)
  expect(() => layerRotaryEncodings(null as never, 2, 8)).toThrow(`${expected} null`)
  expect(() => layerTypes(null as never, 2)).toThrow(`${expected} null`)
  expect(() => rotatedLayers(undefined as never, 2)).toThrow(`${expected} undefined`)
})

test('numbers of layers and head dims that make no sense are refused', () => {
  for (const numLayers of [-1, 0, 2.5, 1e12, '2' as never]) {
    expect(() => rotatedLayers({}, numLayers)).toThrow('an integer in 1..65536 for numLayers')
    expect(() => layerTypes({ sliding_window_pattern: 2 }, numLayers)).toThrow('for numLayers')
    expect(() => layerRotaryEncodings({}, numLayers, 8)).toThrow('for numLayers')
  }
  for (const headDim of [1e9, '64' as never, null as never]) {
    expect(() => layerRotaryEncodings({}, 2, headDim)).toThrow('an integer in 1..65536 for headDim')
  }
})
