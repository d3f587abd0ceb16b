/**
 * SnapKV (Li et al. 2024): the attention of the last w queries, mean over them and over the query heads of a KV head,
 * average-pooled over 5 neighbours so that what surrounds an important token stays with it. The last w tokens
 * themselves stay (`recent`) and do not take part in the pooling.
 */
import type { RescoringRetention } from '../cache/retention.ts'

const kernelSize = 5

/** @param observed w */
export function snapkv(observed: number): RescoringRetention {
  return {
    kind: 'rescoring',
    needs: { mass: observed },
    rescore(rows, scores) {
      // None: tokens came without queries, and nothing is known of them.
      const queries = Math.max(1, rows.massQueries) * rows.group
      for (const [k, row] of scores) {
        const mass = Float64Array.from(rows.mass(k), (value) => value / queries)
        const count = Math.max(0, mass.length - rows.recent)
        row.set(mass)
        row.set(averagePool(mass.subarray(0, count)))
      }
    },
  }
}

/** Zeros beyond the ends count. */
export function averagePool(values: Float64Array): Float64Array {
  const half = (kernelSize - 1) / 2
  const pooled = new Float64Array(values.length)
  for (let n = 0; n < values.length; n++) {
    let sum = 0
    for (let i = Math.max(0, n - half); i <= Math.min(values.length - 1, n + half); i++) sum += values[i] as number
    pooled[n] = sum / kernelSize
  }
  return pooled
}
