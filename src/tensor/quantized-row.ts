/**
 * Rows of K and V in 8 or 4 bits a number, as runs of bytes: the codes, zeros up to a multiple of four bytes, and the
 * row's scale as a little-endian f32. A number is code times scale. int8 and int4 are symmetric; of int4, byte i holds
 * code i in its low half and code i + ceil(dim / 2) in its high half, both plus 8.
 */
import { e4m3ToF32, e5m2ToF32, f32ToE4m3, f32ToE5m2 } from './float8.ts'
import { roundToEven } from './round.ts'

export type QuantizedType = 'int8' | 'fp8-e4m3' | 'fp8-e5m2' | 'int4'

interface QuantizedFormat {
  /** What the largest magnitude of a row becomes. */
  readonly largest: number
  readonly encode: (value: number) => number
  readonly decode: (code: number) => number
}

export const quantizedFormats = {
  int8: { largest: 127, encode: (value) => clampedTo(127, value) & 0xff, decode: (code) => (code << 24) >> 24 },
  'fp8-e4m3': { largest: 448, encode: f32ToE4m3, decode: e4m3ToF32 },
  'fp8-e5m2': { largest: 57344, encode: f32ToE5m2, decode: e5m2ToF32 },
  int4: { largest: 7, encode: (value) => clampedTo(7, value) + 8, decode: (code) => code - 8 },
} as const satisfies Record<QuantizedType, QuantizedFormat>

/** What each code stands for, before the scale. */
const decodedBy = Object.fromEntries(
  Object.entries(quantizedFormats).map(([type, { decode }]) => [
    type,
    Float64Array.from({ length: 256 }, (_, i) => decode(i)),
  ]),
) as unknown as Record<QuantizedType, Float64Array>

function clampedTo(most: number, value: number): number {
  return Math.max(-most, Math.min(most, roundToEven(value)))
}

export function isQuantized(type: string): type is QuantizedType {
  return Object.hasOwn(quantizedFormats, type)
}

/** Bytes of a row of `dim` numbers, scale included: a multiple of four. */
export function quantizedRowBytes(dim: number, type: QuantizedType): number {
  return 4 * Math.ceil((type === 'int4' ? Math.ceil(dim / 2) : dim) / 4) + 4
}

/**
 * Writes a row at byte `at`. The numbers are taken as f32; where one is NaN or infinite the scale becomes NaN, and the
 * row reads as NaN.
 */
export function quantizeRow(values: ArrayLike<number>, type: QuantizedType, into: Uint8Array, at: number): void {
  const { largest, encode } = quantizedFormats[type]
  const dim = values.length
  const bytes = quantizedRowBytes(dim, type)
  const numbers = Float32Array.from(values)
  const most = numbers.reduce((a, b) => Math.max(a, Math.abs(b)), 0)
  const scale = Math.fround((Number.isFinite(most) ? most : Number.NaN) / largest)
  const codeOf = (i: number): number => encode(scale > 0 ? Math.fround((numbers[i] as number) / scale) : 0)
  into.fill(0, at, at + bytes)
  if (type === 'int4') {
    const half = Math.ceil(dim / 2)
    for (let i = 0; i < half; i++) into[at + i] = codeOf(i) | ((half + i < dim ? codeOf(half + i) : 8) << 4)
  } else {
    for (let i = 0; i < dim; i++) into[at + i] = codeOf(i)
  }
  viewOf(into).setFloat32(at + bytes - 4, scale, true)
}

/** The `into.length` numbers of the row at byte `at`; exact where `into` holds f64. */
export function dequantizeRow(
  from: Uint8Array,
  at: number,
  type: QuantizedType,
  into: Float32Array | Float64Array,
): void {
  const decoded = decodedBy[type]
  const dim = into.length
  const scale = viewOf(from).getFloat32(at + quantizedRowBytes(dim, type) - 4, true)
  if (type !== 'int4') {
    for (let i = 0; i < dim; i++) into[i] = (decoded[from[at + i] as number] as number) * scale
    return
  }
  const half = Math.ceil(dim / 2)
  for (let i = 0; i < half; i++) into[i] = (decoded[(from[at + i] as number) & 15] as number) * scale
  for (let i = half; i < dim; i++) into[i] = (decoded[(from[at + i - half] as number) >> 4] as number) * scale
}

function viewOf({ buffer, byteOffset, byteLength }: Uint8Array): DataView {
  return new DataView(buffer, byteOffset, byteLength)
}
