/**
 * TOVA, token omission via attention (Oren et al. 2024): the attention of the last query, mean over all query heads of
 * the layer, so that all KV heads keep the same tokens.
 */
import type { RescoringRetention } from '../cache/retention.ts'

export const tova: RescoringRetention = {
  kind: 'rescoring',
  needs: { mass: 1 },
  rescore(rows, scores) {
    const positions = Array.from(scores.keys(), (k) => rows.positions(k))
    const masses = Array.from(scores.keys(), (k) => rows.mass(k))
    const first = positions[0] as Float64Array
    const isAlike = positions.every((own) => areEqual(own, first))
    const numHeads = rows.numKvHeads * rows.group
    // Heads hold the same tokens but for those that one of them passed over: then sums go by position.
    const sums = isAlike ? undefined : sumByPosition(positions, masses)
    for (const [k, row] of scores) {
      for (let n = 0; n < row.length; n++) {
        row[n] = (sums ? (sums.get(positions[k]![n] as number) as number) : sumOf(masses, n)) / numHeads
      }
    }
  },
}

function areEqual(one: Float64Array, other: Float64Array): boolean {
  let isEqual = one.length === other.length
  for (let n = 0; n < one.length && isEqual; n++) isEqual = one[n] === other[n]
  return isEqual
}

function sumOf(masses: readonly Float32Array[], n: number): number {
  let sum = 0
  for (const mass of masses) sum += mass[n] as number
  return sum
}

function sumByPosition(positions: readonly Float64Array[], masses: readonly Float32Array[]): Map<number, number> {
  const sums = new Map<number, number>()
  for (const [k, mass] of masses.entries()) {
    for (let n = 0; n < mass.length; n++) {
      const position = positions[k]![n] as number
      sums.set(position, (sums.get(position) ?? 0) + (mass[n] as number))
    }
  }
  return sums
}
