/** 8-bit floats, quantized rows and the Hadamard transform, against their definitions. */
import { describe, expect, test } from 'vitest'
import { e4m3ToF32, e5m2ToF32, f32ToE4m3, f32ToE5m2 } from './float8.ts'
import { hadamard } from './hadamard.ts'
import { dequantizeRow, type QuantizedType, quantizedFormats, quantizedRowBytes, quantizeRow } from './quantized-row.ts'

const codes = Array.from({ length: 256 }, (_, code) => code)
const types = Object.keys(quantizedFormats) as QuantizedType[]

const formats = {
  e4m3: { toF32: e4m3ToF32, fromF32: f32ToE4m3, largest: 448, least: 2 ** -9, sum: 5407.875, finite: 254 },
  e5m2: { toF32: e5m2ToF32, fromF32: f32ToE5m2, largest: 57344, least: 2 ** -16, sum: 360447.99976, finite: 248 },
} as const

describe.each(Object.entries(formats))('%s', (_, { toF32, fromF32, largest, least, sum, finite }) => {
  test('has the values of the format', () => {
    const values = codes.map(toF32)
    const positive = values.filter((value) => value > 0 && Number.isFinite(value))
    expect([Math.max(...positive), Math.min(...positive)]).toEqual([largest, least])
    expect(positive.reduce((a, b) => a + b, 0)).toBeCloseTo(sum, 4)
    expect(values.filter(Number.isFinite)).toHaveLength(finite)
  })

  test('every code comes back, NaN as NaN, infinity as the largest', () => {
    for (const code of codes) {
      const value = toF32(code)
      if (Number.isFinite(value)) expect(fromF32(value)).toBe(code)
      else if (Number.isNaN(value)) expect(toF32(fromF32(value))).toBeNaN()
      else expect(toF32(fromF32(value))).toBe(Math.sign(value) * largest)
    }
  })

  test('rounds to the nearest of two neighbours, halfway to the even code, and saturates', () => {
    for (const code of codes.filter((each) => each < 0x7f && toF32(each + 1) <= largest)) {
      const [low, high] = [toF32(code), toF32(code + 1)]
      const middle = (low + high) / 2
      expect(fromF32(middle)).toBe(code % 2 ? code + 1 : code)
      expect(fromF32(Math.fround(middle * (1 - 2 ** -23)))).toBe(code)
      expect(fromF32(Math.fround(middle * (1 + 2 ** -23)))).toBe(code + 1)
      expect(fromF32(-middle)).toBe(0x80 | fromF32(middle))
    }
    for (const value of [largest * 1.01, 1e30, Number.POSITIVE_INFINITY]) expect(toF32(fromF32(-value))).toBe(-largest)
  })
})

test('numbers become the codes that others give them', () => {
  const known: readonly (readonly [number, number, number])[] = [
    ...([
      [0.1, 0x1d, 0x2e],
      [0.3, 0x2a, 0x35],
      [1 / 3, 0x2b, 0x35],
      [Math.PI, 0x45, 0x42],
    ] as const),
    ...([
      [17, 0x58, 0x4c],
      [18, 0x59, 0x4c],
      [19, 0x5a, 0x4d],
      [240, 0x77, 0x5c],
    ] as const),
    ...([
      [1.0625, 0x38, 0x3c],
      [1.1875, 0x3a, 0x3d],
      [2 ** -10, 0, 0x14],
      [0.0019, 1, 0x18],
    ] as const),
    ...([
      [0.06, 0x17, 0x2c],
      [464, 0x7e, 0x5f],
      [61439, 0x7e, 0x7b],
      [61440, 0x7e, 0x7b],
    ] as const),
    ...([
      [2 ** -17, 0, 0],
      [1.0001 * 2 ** -10, 1, 0x14],
    ] as const),
  ]
  for (const [value, e4m3, e5m2] of known)
    expect([value, f32ToE4m3(value), f32ToE5m2(value)]).toEqual([value, e4m3, e5m2])
})

/** A row there and back. */
function roundTrip(values: readonly number[], type: QuantizedType): { bytes: Uint8Array; back: number[] } {
  const bytes = new Uint8Array(quantizedRowBytes(values.length, type) + 8).fill(9)
  quantizeRow(values, type, bytes, 4)
  const back = new Float64Array(values.length)
  dequantizeRow(bytes, 4, type, back)
  expect([...bytes.subarray(0, 4), ...bytes.subarray(-4)]).toEqual(new Array(8).fill(9))
  return { bytes: bytes.subarray(4, -4), back: Array.from(back) }
}

describe.each(types)('rows of %s', (type) => {
  test('lengths are multiples of four bytes', () => {
    const sizes = [1, 2, 3, 4, 5, 8, 9, 111, 128].map((dim) => quantizedRowBytes(dim, type))
    const expected = type === 'int4' ? [8, 8, 8, 8, 8, 8, 12, 60, 68] : [8, 8, 8, 8, 12, 12, 16, 116, 132]
    expect(sizes).toEqual(expected)
  })

  test('every code comes back from a row whose scale is a power of two', () => {
    const { largest, decode } = quantizedFormats[type]
    const values = codes.map((code) => decode(code) / 1024).filter((value) => Math.abs(value) <= largest / 1024)
    expect(values.length).toBeGreaterThan(14)
    for (const dim of [values.length, values.length - 1]) {
      const row = values.slice(-dim).map((value) => value + 0)
      row[0] = largest / 1024
      expect(roundTrip(row, type).back.map((value) => value + 0)).toEqual(row)
    }
  })

  test('the error is at most half a step, and the largest number exact but for the rounding of the scale', () => {
    const values = Array.from({ length: 77 }, (_, i) => Math.fround(Math.sin(i * i) * 3))
    const { back } = roundTrip(values, type)
    const largest = Math.max(...values.map(Math.abs))
    // Steps of floats are relative to the number.
    const step = { int8: 1 / 127, int4: 1 / 7, 'fp8-e4m3': 1 / 8, 'fp8-e5m2': 1 / 4 }[type]
    values.forEach((value, i) => {
      const size = type.startsWith('fp8') ? Math.abs(value) + largest * 1e-4 : largest
      expect(Math.abs((back[i] as number) - value)).toBeLessThanOrEqual((step / 2) * size * 1.00001)
    })
    const at = values.findIndex((value) => Math.abs(value) === largest)
    expect(Math.abs((back[at] as number) / (values[at] as number) - 1)).toBeLessThan(1e-6)
  })

  test('NaN and infinity make a row NaN, zeros stay, and no scale is too small', () => {
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      expect(roundTrip([1, value, 2], type).back).toEqual([Number.NaN, Number.NaN, Number.NaN])
    }
    expect(roundTrip([0, 0, 0], type).back.map(Math.abs)).toEqual([0, 0, 0])
    for (const tiny of [2 ** -149, 2 ** -140, 2 ** -130]) {
      for (const value of roundTrip([tiny, -tiny], type).back) expect(Math.abs(value)).toBeLessThanOrEqual(tiny * 2)
    }
  })
})

test('int4 lies with the second half of a row in the high halves of its bytes', () => {
  const { bytes } = roundTrip([7, -7, 1, 2, -3], 'int4')
  // Codes 15, 1, 9 and 10, 5 and, in the place of a sixth number, the code of zero; a byte of padding; the scale 1.
  expect(Array.from(bytes)).toEqual([0xaf, 0x51, 0x89, 0, 0, 0, 0x80, 0x3f])
})

describe('the Hadamard transform', () => {
  test.each([1, 2, 3, 37, 64, 80, 96, 128])('of %i numbers is orthonormal and its own inverse', (length) => {
    const x = Float64Array.from({ length }, (_, i) => Math.cos(i * i + 1))
    const y = x.slice()
    hadamard(y)
    const norm = (values: Float64Array) => values.reduce((a, b) => a + b * b, 0)
    expect(norm(y)).toBeCloseTo(norm(x), 10)
    if (length > 1) expect(y).not.toEqual(x)
    hadamard(y)
    for (const [i, value] of y.entries()) expect(value).toBeCloseTo(x[i] as number, 12)
  })

  test('spreads one number evenly, within its block', () => {
    const x = new Float64Array(96)
    x[3] = 8
    hadamard(x)
    expect(x.map(Math.abs)).toEqual(Float64Array.from({ length: 96 }, (_, i) => (i < 64 ? 1 : 0)))
  })
})
