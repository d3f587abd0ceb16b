/**
 * TOVA, token omission via attention (Oren et al. 2024): the attention of the last query, mean over all query heads of
 * the layer, so that all KV heads keep the same tokens.
 */
import type { RescoringRetention } from '../cache/retention.ts'

export const tova: RescoringRetention = {
  kind: 'rescoring',
  needs: { mass: 1 },
  rescore(rows, scores) {
    const masses = scores.map((_, k) => rows.mass(k))
    const positions = scores.map((_, k) => rows.positions(k))
    // Heads hold the same tokens but for those that one of them passed over: sums go by position.
    const sums = new Map<number, number>()
    for (const [k, mass] of masses.entries()) {
      for (const [n, value] of mass.entries()) {
        const position = positions[k]![n] as number
        sums.set(position, (sums.get(position) ?? 0) + value)
      }
    }
    const numHeads = rows.numKvHeads * rows.group
    for (const [k, row] of scores.entries()) {
      for (let n = 0; n < row.length; n++) row[n] = (sums.get(positions[k]![n] as number) as number) / numHeads
    }
  },
}
