/** Rows of logits, as a study of a mask sees them. */

/** What was seen of one query: for each key, what is added to its logit; -Infinity hides it. */
export interface Row {
  readonly head: number
  readonly position: number
  readonly added: readonly number[]
}

/** `[a, b, n]` as `[b, a, n]`. */
export function exchanged(values: ArrayLike<number>, a: number, b: number, n: number): Float32Array {
  const result = new Float32Array(a * b * n)
  for (let i = 0; i < result.length; i++) {
    const [row, column] = [Math.floor(i / n), i % n]
    result[i] = values[((row % a) * b + Math.floor(row / a)) * n + column] as number
  }
  return result
}

/** By how much the newest key is preferred to the oldest, for each position between them. */
export function slopesOf(rows: readonly Row[], numHeads: number): number[] {
  const slope = ({ position, added }: Row): number => {
    const oldest = added.findIndex((value) => value > Number.NEGATIVE_INFINITY)
    return oldest < 0 || oldest === position ? 0 : -(added[oldest] as number) / (position - oldest)
  }
  return Array.from({ length: numHeads }, (_, h) => slope(rows[h] ?? rows[0]!))
}
