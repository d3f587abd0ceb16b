/**
 * Numbers of eight bits: e4m3fn (sign, four bits of exponent, three of fraction; up to 448, no infinity) and e5m2 (up to
 * 57344). Conversion to them rounds to nearest even and saturates; NaN stays NaN. Values and bits are those of the OCP
 * 8-bit floating point specification (2023).
 */
import { roundToEven } from './round.ts'

const scratch = new DataView(new ArrayBuffer(4))

interface Float8Format {
  readonly bias: number
  readonly fractionBits: number
  /** Code of the largest finite number. */
  readonly largest: number
  readonly notANumber: number
}

const e4m3: Float8Format = { bias: 7, fractionBits: 3, largest: 0x7e, notANumber: 0x7f }
const e5m2: Float8Format = { bias: 15, fractionBits: 2, largest: 0x7b, notANumber: 0x7e }

/** The value of an e4m3fn code. Exact. */
export function e4m3ToF32(code: number): number {
  return decoded(code, e4m3)
}

/** The value of an e5m2 code. Exact. */
export function e5m2ToF32(code: number): number {
  return decoded(code, e5m2)
}

/** The e4m3fn code nearest to the f32 `value`. */
export function f32ToE4m3(value: number): number {
  return encoded(value, e4m3)
}

/** The e5m2 code nearest to the f32 `value`. */
export function f32ToE5m2(value: number): number {
  return encoded(value, e5m2)
}

function decoded(code: number, { bias, fractionBits, largest }: Float8Format): number {
  const sign = code & 0x80 ? -1 : 1
  const magnitude = code & 0x7f
  const steps = 2 ** fractionBits
  const [exponent, fraction] = [magnitude >> fractionBits, magnitude % steps]
  // After the largest number e5m2 has infinity; what comes then is NaN in both.
  if (magnitude > largest) return magnitude === 0x7c ? sign * Number.POSITIVE_INFINITY : Number.NaN
  if (exponent === 0) return sign * fraction * 2 ** (1 - bias - fractionBits)
  return sign * (1 + fraction / steps) * 2 ** (exponent - bias)
}

function encoded(value: number, { bias, fractionBits, largest, notANumber }: Float8Format): number {
  scratch.setFloat32(0, value)
  const bits = scratch.getUint32(0)
  const sign = (bits >>> 24) & 0x80
  const magnitude = bits & 0x7fffffff
  if (magnitude > 0x7f800000) return sign | notANumber
  const dropped = 23 - fractionBits
  const least = (128 - bias) << 23 // the bits of the smallest normal number
  if (magnitude < least) {
    // Multiples of the smallest number, the first normal one included.
    return sign | roundToEven(Math.abs(Math.fround(value)) * 2 ** (bias - 1 + fractionBits))
  }
  const rounded = magnitude + (1 << (dropped - 1)) - 1 + ((magnitude >>> dropped) & 1)
  return sign | Math.min(largest, (rounded - ((127 - bias) << 23)) >>> dropped)
}
