import { readdirSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { fillRotaryTable, type RotaryEncoding, rotaryEncoding, rotaryEncodings } from './index.ts'

function table(encoding: RotaryEncoding, position: number): { cos: Float32Array; sin: Float32Array } {
  const size = encoding.inverseFrequencies.length
  const [cos, sin] = [new Float32Array(size), new Float32Array(size)]
  fillRotaryTable(encoding, [position], cos, sin)
  return { cos, sin }
}

/** Half split over the first 2 R components. */
function rotate(x: readonly number[], encoding: RotaryEncoding, position: number): number[] {
  const { cos, sin } = table(encoding, position)
  const half = cos.length
  const result = [...x]
  for (let i = 0; i < half; i++) {
    result[i] = x[i]! * cos[i]! - x[i + half]! * sin[i]!
    result[i + half] = x[i + half]! * cos[i]! + x[i]! * sin[i]!
  }
  return result
}

function expectClose(actual: ArrayLike<number>, expected: readonly number[], tolerance: number): void {
  expect(actual.length).toBe(expected.length)
  for (const [i, value] of expected.entries()) {
    const error = Math.abs(actual[i]! - value) / Math.max(Math.abs(value), 1e-3)
    expect(error <= tolerance, `${i}: ${actual[i]} instead of ${value}`).toBe(true)
  }
}

describe('plain RoPE', () => {
  const q = [1, 2, 3, 4, 5, 6, 7, 8]

  it('turns the published example', () => {
    const whole = [
      -1.695592537, 0.137551738, 2.7886816, 3.975982036, -4.808842475, 6.323059348, 7.086836737, 8.011963982,
    ]
    expectClose(rotate(q, rotaryEncoding({}, 8), 3), whole, 2e-7)
    const half = [-1.413352521, 1.879118067, -2.828857482, 4.058191135, 5, 6, 7, 8]
    expectClose(rotate(q, rotaryEncoding({ partial_rotary_factor: 0.5 }, 8), 3), half, 2e-7)
  })

  it('has the published inverse frequencies', () => {
    const at = (theta: number, width: number, indices: readonly number[]): number[] => {
      const { inverseFrequencies } = rotaryEncoding({ rope_theta: theta }, width)
      return indices.map((i) => inverseFrequencies[i]!)
    }
    expectClose(at(1e4, 128, [1, 31, 63]), [0.865964323, 0.0115478198, 1.15478198e-4], 1e-8)
    expectClose(at(5e5, 64, [1, 15, 31]), [0.663601238, 0.00213111954, 3.01385815e-6], 1e-8)
    expectClose(at(1e6, 128, [1, 32, 63]), [0.805842188, 0.001, 1.24093776e-6], 1e-8)
    expectClose(at(1e4, 32, [1, 8, 15]), [0.562341325, 0.01, 1.77827941e-4], 1e-8)
  })

  it('truncates the partial width', () => {
    const pairs = (headDim: number, factor: number): number =>
      rotaryEncoding({ partial_rotary_factor: factor }, headDim).inverseFrequencies.length
    expect([pairs(80, 0.4), pairs(96, 0.75), pairs(128, 0.75), pairs(64, 0.25)]).toEqual([16, 36, 48, 8])
  })

  it('stays exact up to position 2^31', () => {
    const encoding = rotaryEncoding({}, 128)
    const position = 2 ** 31 - 1
    const { cos, sin } = table(encoding, position)
    // An independent way: position = a * 2^16 + b, by the addition theorem over exactly reduced angles.
    for (const [i, frequency] of encoding.inverseFrequencies.entries()) {
      const turns =
        (BigInt(position) * BigInt(Math.round(frequency * 2 ** 52))) % BigInt(Math.round(2 * Math.PI * 2 ** 52))
      const expected = Number(turns) / 2 ** 52
      expect(Math.abs(cos[i]! - Math.cos(expected))).toBeLessThan(2e-6)
      expect(Math.abs(sin[i]! - Math.sin(expected))).toBeLessThan(2e-6)
    }
  })

  it('makes scores depend on the distance alone', () => {
    const encoding = rotaryEncoding({ rope_theta: 1e4 }, 8)
    const vector = fc.array(fc.double({ min: -2, max: 2, noNaN: true }), { minLength: 8, maxLength: 8 })
    fc.assert(
      fc.property(vector, vector, fc.nat(5000), fc.nat(5000), fc.nat(5000), (a, b, i, j, shift) => {
        const score = (p: number, r: number): number => {
          const [x, y] = [rotate(a, encoding, p), rotate(b, encoding, r)]
          return x.reduce((sum, value, d) => sum + value * y[d]!, 0)
        }
        expect(Math.abs(score(i, j) - score(i + shift, j + shift))).toBeLessThan(2e-5)
      }),
    )
  })
})

it('every encoding file is in the table, under its name', () => {
  const others = ['config', 'contract', 'index', 'table']
  const files = readdirSync(new URL('.', import.meta.url)).filter((name) => !name.includes('.test.'))
  const names = files.map((name) => name.replace('.ts', '')).filter((name) => !others.includes(name))
  expect(Object.keys(rotaryEncodings).sort()).toEqual(names.sort())
})

describe('the rotary part of config.json', () => {
  const thetaOf = (config: Record<string, unknown>): number => 1 / rotaryEncoding(config, 4).inverseFrequencies[1]! ** 2

  it('is found in old and new places; the old dictionary wins, outer keys fill gaps', () => {
    expect(thetaOf({})).toBeCloseTo(1e4)
    expect(thetaOf({ rope_theta: 500 })).toBeCloseTo(500)
    expect(thetaOf({ rope_parameters: { rope_type: 'default', rope_theta: 600 } })).toBeCloseTo(600)
    expect(thetaOf({ rope_theta: 500, rope_parameters: { rope_type: 'default', rope_theta: 600 } })).toBeCloseTo(600)
    expect(thetaOf({ rope_theta: 500, rope_parameters: { rope_type: 'default' } })).toBeCloseTo(500)
    const both = { rope_scaling: { type: 'default' }, rope_parameters: { rope_type: 'yarn' }, rope_theta: 700 }
    expect(thetaOf(both)).toBeCloseTo(700)
    expect(thetaOf({ rope_scaling: null, rope_theta: 500 })).toBeCloseTo(500)
  })

  const refused: Record<string, [Record<string, unknown>, string]> = {
    'a type that is not there yet': [{ rope_scaling: { rope_type: 'yarn', factor: 4 } }, 'of: default, got "yarn"'],
    'the older key for the type': [{ rope_scaling: { type: 'linear', factor: 4 } }, 'got "linear"'],
    'a type called like a method': [{ rope_scaling: { type: 'toString' } }, 'got "toString"'],
    'a type that is no text': [{ rope_parameters: { rope_type: 3 } }, 'expected a string for rope_type, got 3'],
    'tables by layer type': [{ rope_parameters: { full_attention: {} } }, 'got "full_attention"'],
    'a dictionary that is none': [{ rope_scaling: [] }, 'expected an object for rope_scaling'],
    'theta 0': [{ rope_theta: 0 }, 'expected a number above 0 for rope_theta, got 0'],
    'theta as text': [{ rope_theta: '10000' }, 'expected a number above 0 for rope_theta'],
    'an odd width': [{ partial_rotary_factor: 0.9 }, 'expected an even rotary width in 2..4, got 3'],
    'a width of 0': [{ partial_rotary_factor: 0.1 }, 'expected an even rotary width'],
    'a width above the head': [{ partial_rotary_factor: 2 }, 'expected an even rotary width'],
  }
  for (const [name, [config, message]] of Object.entries(refused)) {
    it(`is refused with ${name}`, () => {
      expect(() => rotaryEncoding(config, 4)).toThrow(message)
    })
  }
})
