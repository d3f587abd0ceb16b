/**
 * H2O, heavy hitters (Zhang et al. 2023): the sum of the attention that a row got from all queries since it came, over
 * the query heads of its KV head. Half of the budget goes to the newest tokens (`recent`).
 */
import type { RescoringRetention } from '../cache/retention.ts'

export const h2o: RescoringRetention = {
  kind: 'rescoring',
  needs: { mass: 'all' },
  rescore(rows, scores) {
    for (const [k, row] of scores) row.set(rows.mass(k))
  },
}
