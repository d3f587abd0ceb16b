/** Lengths of rows of `[n, D]`, summed in f64; four sums at once, since one waits for itself. */

/** Euclidean length of row n. */
export function normOf(rows: Float32Array, n: number, dim: number): number {
  const start = n * dim
  let [a, b, c, e, d] = [0, 0, 0, 0, 0]
  for (; d + 3 < dim; d += 4) {
    a += (rows[start + d] as number) ** 2
    b += (rows[start + d + 1] as number) ** 2
    c += (rows[start + d + 2] as number) ** 2
    e += (rows[start + d + 3] as number) ** 2
  }
  for (; d < dim; d++) a += (rows[start + d] as number) ** 2
  return Math.sqrt(a + b + (c + e))
}
