/** IEEE 754 binary16 in Uint16Array, to and from f32; conversion to f16 rounds to nearest even, as hardware does. */

import { roundToEven } from './round.ts'

const scratch = new DataView(new ArrayBuffer(4))

/** The value of the f16 bits `half`. Exact. */
export function f16ToF32(half: number): number {
  const sign = half & 0x8000 ? -1 : 1
  const exponent = (half >> 10) & 0x1f
  const fraction = half & 0x3ff
  if (exponent === 0x1f) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY
  if (exponent === 0) return sign * fraction * 2 ** -24
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15)
}

/** The f16 bits nearest to the f32 `value`, ties to even; overflow gives infinity, NaN stays NaN. */
export function f32ToF16(value: number): number {
  scratch.setFloat32(0, value)
  const bits = scratch.getUint32(0)
  const sign = (bits >>> 16) & 0x8000
  const magnitude = bits & 0x7fffffff
  if (magnitude > 0x7f800000) return sign | 0x7e00
  if (magnitude >= 0x477ff000) return sign | 0x7c00 // 65520 and above round to infinity
  if (magnitude < 0x38800000) return sign | roundToEven(Math.abs(Math.fround(value)) * 2 ** 24)
  const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1)
  return sign | ((rounded - 0x38000000) >>> 13)
}
