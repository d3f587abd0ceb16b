/** bfloat16 (the upper half of an f32) in Uint16Array; conversion to it rounds to nearest even. */

const scratch = new DataView(new ArrayBuffer(4))

/** The value of the bf16 bits `bits`. Exact. */
export function bf16ToF32(bits: number): number {
  scratch.setUint32(0, (bits << 16) >>> 0)
  return scratch.getFloat32(0)
}

/** The bf16 bits nearest to the f32 `value`, ties to even; overflow gives infinity, NaN stays NaN. */
export function f32ToBf16(value: number): number {
  scratch.setFloat32(0, value)
  const bits = scratch.getUint32(0)
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff
}
