/** The worst of many rows without sorting them: quickselect over typed arrays. */

/**
 * Reorders `rows` so that its first `count` are those that lose against all others: the lowest score first, of equal
 * scores the lowest `rank`. Ranks of rows with equal scores differ. O(rows).
 */
export function moveLowest(rows: Int32Array, count: number, scores: Float64Array, ranks: Float64Array): void {
  let [low, high] = [0, rows.length - 1]
  while (low < high) {
    const middle = partition(rows, low, high, scores, ranks)
    if (middle === count - 1 || middle === count) return
    if (middle < count) low = middle + 1
    else high = middle - 1
  }
}

/** Hoare's: around the middle one of three, so that rows in order are no worst case. Returns where it came to lie. */
function partition(rows: Int32Array, low: number, high: number, scores: Float64Array, ranks: Float64Array): number {
  const center = (low + high) >> 1
  if (loses(rows, center, low, scores, ranks)) swap(rows, center, low)
  if (loses(rows, high, low, scores, ranks)) swap(rows, high, low)
  if (loses(rows, center, high, scores, ranks)) swap(rows, center, high)
  const pivot = rows[high] as number
  const [score, rank] = [scores[pivot] as number, ranks[pivot] as number]
  let end = low
  for (let n = low; n < high; n++) {
    const row = rows[n] as number
    const own = scores[row] as number
    if (own < score || (own === score && (ranks[row] as number) < rank)) swap(rows, n, end++)
  }
  swap(rows, end, high)
  return end
}

function loses(rows: Int32Array, a: number, b: number, scores: Float64Array, ranks: Float64Array): boolean {
  const [one, other] = [rows[a] as number, rows[b] as number]
  const [score, than] = [scores[one] as number, scores[other] as number]
  return score < than || (score === than && (ranks[one] as number) < (ranks[other] as number))
}

function swap(rows: Int32Array, a: number, b: number): void {
  const row = rows[a] as number
  rows[a] = rows[b] as number
  rows[b] = row
}
