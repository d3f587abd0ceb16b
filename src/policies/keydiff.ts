/**
 * KeyDiff (Park et al. 2025): how little a key resembles the others, -cos(k, mean of the unit keys). Looks at content
 * alone, no attention needed; with keys spread evenly the mean is near zero and scores are noise.
 */
import type { RescoringRetention } from '../cache/retention.ts'
import { dot, normOf } from './vectors.ts'

export const keydiff: RescoringRetention = {
  kind: 'rescoring',
  needs: {},
  rescore(rows, scores) {
    for (const [k, row] of scores.entries()) row.set(keyDifferences(rows.keys(k), rows.headDim))
  },
}

/** @param keys `[n, D]` */
export function keyDifferences(keys: Float32Array, headDim: number): Float64Array {
  const count = keys.length / headDim
  const norms = new Float64Array(count)
  const anchor = new Float64Array(headDim)
  for (let n = 0; n < count; n++) {
    const norm = normOf(keys, n, headDim)
    norms[n] = norm
    if (norm > 0) addScaled(anchor, keys, n, 1 / (norm * count))
  }
  const length = Math.sqrt(anchor.reduce((sum, value) => sum + value * value, 0))
  if (length === 0) return new Float64Array(count)
  return norms.map((norm, n) => (norm === 0 ? 0 : -dot(keys, n, anchor) / (norm * length)))
}

function addScaled(sums: Float64Array, keys: Float32Array, n: number, factor: number): void {
  const start = n * sums.length
  for (let d = 0; d < sums.length; d++) sums[d] = (sums[d] as number) + (keys[start + d] as number) * factor
}
