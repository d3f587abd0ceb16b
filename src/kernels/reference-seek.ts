/** Seeking rows. */
import type { SeekArgs } from './contract.ts'
import { readRow, storageOf } from './storage.ts'

export function seek(args: SeekArgs): void {
  const { numKvHeads, numRows, most, rows, lengths } = args
  for (let k = 0; k < numKvHeads; k++) {
    const scores = Array.from({ length: numRows }, (_, row) => scoreOf(args, k, row))
    const chosen = Array.from(scores.keys())
      .filter((row) => (scores[row] as number) > Number.NEGATIVE_INFINITY)
      .sort((a, b) => (scores[b] as number) - (scores[a] as number) || b - a)
      .slice(0, most)
      .sort((a, b) => a - b)
    rows.set(chosen, k * most)
    lengths[k] = chosen.length
  }
}

/** Of a row of a head, for the query head that scores it highest. */
export function scoreOf(args: SeekArgs, head: number, row: number): number {
  const { query, bounds, bias, numHeads, numKvHeads, headDim: D, scale, capacity } = args
  const group = numHeads / numKvHeads
  const numbers = readRow(bounds, storageOf(bounds, args.storage), head * capacity + row, 2 * D)
  let highest = Number.NEGATIVE_INFINITY
  for (let h = head * group; h < (head + 1) * group; h++) {
    let sum = 0
    for (let d = 0; d < D; d++) {
      const value = scale * (query[h * D + d] as number)
      sum += value * (numbers[value > 0 ? d : D + d] as number)
    }
    if (sum > highest) highest = sum
  }
  return highest + (bias[head * capacity + row] as number)
}
