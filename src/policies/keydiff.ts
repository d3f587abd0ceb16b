/**
 * KeyDiff (Park et al. 2025): how little a key resembles the others, -cos(k, mean of the unit keys). Looks at content
 * alone, no attention needed; with keys spread evenly the mean is near zero and scores are noise.
 */
import type { RescoringRetention } from '../cache/retention.ts'

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
    norms[n] = Math.sqrt(dot(keys, n, keys.subarray(n * headDim, (n + 1) * headDim)))
    if (norms[n] === 0) continue
    for (let d = 0; d < headDim; d++) {
      anchor[d] = (anchor[d] as number) + (keys[n * headDim + d] as number) / ((norms[n] as number) * count)
    }
  }
  const length = Math.sqrt(anchor.reduce((sum, value) => sum + value * value, 0))
  return norms.map((norm, n) => (norm === 0 || length === 0 ? 0 : -dot(keys, n, anchor) / (norm * length)))
}

function dot(keys: Float32Array, n: number, other: Float32Array | Float64Array): number {
  let sum = 0
  for (let d = 0; d < other.length; d++) sum += (keys[n * other.length + d] as number) * (other[d] as number)
  return sum
}
