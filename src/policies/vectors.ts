/**
 * Lengths of rows of `[n, D]`, summed in f64; four sums at once, since one waits for itself, and nothing in the loop that
 * makes objects.
 */

/** Euclidean length of row n. */
export function normOf(rows: Float32Array, n: number, dim: number): number {
  const start = n * dim
  let [a, b, c, e, d] = [0, 0, 0, 0, 0]
  for (; d + 3 < dim; d += 4) {
    const v = rows[start + d] as number
    const w = rows[start + d + 1] as number
    const x = rows[start + d + 2] as number
    const y = rows[start + d + 3] as number
    a += v * v
    b += w * w
    c += x * x
    e += y * y
  }
  for (; d < dim; d++) a += (rows[start + d] as number) * (rows[start + d] as number)
  return Math.sqrt(a + b + (c + e))
}
