/**
 * The orthonormal Walsh-Hadamard transform, which is its own inverse and leaves dot products as they are: it spreads the
 * few large numbers of a row over all of it, so that few bits a number say more. Lengths that are no power of two go
 * in blocks: 96 as 64 and 32, 37 as 32, 4 and 1.
 */

/** Transforms in place. `round` is applied to each result of an operation: Math.fround makes it what f32 gives. */
export function hadamard(x: Float32Array | Float64Array | number[], round = (value: number): number => value): void {
  for (let begin = 0; begin < x.length; ) {
    const length = 2 ** (31 - Math.clz32(x.length - begin))
    transformBlock(x, begin, length, round)
    begin += length
  }
}

function transformBlock(
  x: Float32Array | Float64Array | number[],
  begin: number,
  length: number,
  round: (value: number) => number,
): void {
  for (let step = 1; step < length; step *= 2) {
    for (let first = begin; first < begin + length; first += 2 * step) {
      for (let i = first; i < first + step; i++) {
        const a = x[i] as number
        const b = x[i + step] as number
        x[i] = round(a + b)
        x[i + step] = round(a - b)
      }
    }
  }
  const factor = round(1 / Math.sqrt(length))
  for (let i = begin; i < begin + length; i++) x[i] = round((x[i] as number) * factor)
}
