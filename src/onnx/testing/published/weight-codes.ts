/** Weights as codes, in forms that the library itself does not write. */

/** Blocks of 32 in one or two bits, as far as such weights go. */
export function quantizeCoarsely(matrix: Float32Array, bits: 1 | 2): { codes: Uint8Array; scales: Float32Array } {
  const half = 2 ** (bits - 1)
  const codes = new Uint8Array((matrix.length * bits) / 8)
  const scales = Float32Array.from({ length: matrix.length / 32 }, (_, block) => {
    const part = matrix.subarray(block * 32, block * 32 + 32)
    return part.reduce((sum, value) => sum + Math.abs(value), 0) / 32
  })
  for (const [i, value] of matrix.entries()) {
    const code = Math.max(0, Math.min(2 * half - 1, Math.round(value / scales[Math.floor(i / 32)]!) + half))
    codes[(i * bits) >> 3]! |= code << ((i * bits) & 7)
  }
  return { codes, scales }
}

/** The sixteen numbers of NF4 (QLoRA), as MatMulBnb4 has them. */
const normalFloats = [
  ...[-1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334],
  ...[-0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224],
  ...[0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1],
]

function nearest(value: number): number {
  const distances = normalFloats.map((number) => Math.abs(number - value))
  return distances.indexOf(Math.min(...distances))
}

/** NF4: codes in blocks of 64, two a byte, the earlier in the high half, and the largest magnitude of each block. */
export function quantizeNormally(weights: Float32Array): { codes: Uint8Array; most: Float32Array } {
  const blocks = Math.ceil(weights.length / 64)
  const most = Float32Array.from({ length: blocks }, (_, b) =>
    weights.subarray(b * 64, b * 64 + 64).reduce((a, v) => Math.max(a, Math.abs(v)), 0),
  )
  const codes = Uint8Array.from({ length: weights.length / 2 }, (_, i) => {
    const code = (at: number): number => nearest(weights[at]! / most[Math.floor(at / 64)]!)
    return (code(2 * i) << 4) | code(2 * i + 1)
  })
  return { codes, most }
}
