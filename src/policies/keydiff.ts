/**
 * KeyDiff (Park et al. 2025): how little a key resembles the others, -cos(k, mean of the unit keys). Looks at content
 * alone, no attention needed; with keys spread evenly the mean is near zero and scores are noise.
 */

import type { RowProducts } from '../cache/ranked/products.ts'
import type { RescoringRetention } from '../cache/retention.ts'
import { normOf } from './vectors.ts'

export const keydiff: RescoringRetention = {
  kind: 'rescoring',
  needs: {},
  isByHead: true,
  rescore(rows, scores) {
    for (const [k, row] of scores) row.set(keyDifferences(rows.dense, rows.keys(k), rows.headDim))
  },
}

/** @param keys `[n, D]` */
export function keyDifferences(dense: RowProducts, keys: Float32Array, headDim: number): Float64Array {
  const norms = new Float64Array(keys.length / headDim)
  for (let n = 0; n < norms.length; n++) norms[n] = normOf(keys, n, headDim)
  // Weights of 1 / norm make a mean of unit keys, but for a factor that its length takes out again; a key of zeros has none.
  const weights = Float32Array.from(norms, (norm) => (norm > 0 ? -Math.log(norm) : Number.NEGATIVE_INFINITY))
  const anchor = dense.mean(keys, headDim, weights)
  const length = normOf(anchor, 0, headDim)
  if (length === 0) return new Float64Array(norms.length)
  const products = dense.products(anchor, keys, headDim)
  return norms.map((norm, n) => (norm === 0 ? 0 : -(products[n] as number) / (norm * length)))
}
