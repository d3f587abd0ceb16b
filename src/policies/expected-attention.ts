/**
 * Expected Attention (Devoto et al. 2025): what queries to come will attend to, if they are distributed as those so far.
 * From a sample of queries before rotation, their mean and covariance; turned by the mean rotation of the next 512
 * positions; z = mu . k / sqrt(d) + k' Sigma k / (2 d); softmax over the rows but the sinks, mean over the query heads of
 * the KV head, times the norm of the value.
 */
import type { KeptRows, QuerySample, RescoringRetention } from '../cache/retention.ts'

const futurePositions = 512
const sampleSize = 64

export const expectedAttention: RescoringRetention = {
  kind: 'rescoring',
  needs: { queries: sampleSize },
  rescore(rows, scores) {
    const sample = rows.sample as QuerySample
    const turned = turnQueries(rows, sample)
    for (const [k, row] of scores.entries()) {
      const keys = rows.keys(k)
      const values = rows.values(k)
      row.fill(0)
      for (let g = 0; g < rows.group && sample.count > 0; g++) {
        addHead(rows, turned, k * rows.group + g, keys, row)
      }
      for (let n = 0; n < row.length; n++) {
        row[n] = (sample.count > 0 ? (row[n] as number) / rows.group : 1) * norm(values, n, rows.valueDim)
      }
    }
  },
}

/** The sample as it would stand at the mean of the positions to come: a linear map, so mean and covariance follow. */
function turnQueries({ headDim, group, numKvHeads }: KeptRows, sample: QuerySample): Float64Array {
  const turned = Float64Array.from(sample.queries)
  const rotation = sample.meanRotation(futurePositions)
  if (!rotation) return turned
  const { cos, sin, isInterleaved } = rotation
  for (let head = 0; head < sample.count * group * numKvHeads; head++) {
    for (let i = 0; i < cos.length; i++) {
      const first = head * headDim + (isInterleaved ? 2 * i : i)
      const second = isInterleaved ? first + 1 : first + cos.length
      const [a, b] = [turned[first] as number, turned[second] as number]
      turned[first] = a * (cos[i] as number) - b * (sin[i] as number)
      turned[second] = b * (cos[i] as number) + a * (sin[i] as number)
    }
  }
  return turned
}

/** Adds the expected shares of one query head. The covariance form is the variance of q . k over the sample. */
function addHead(rows: KeptRows, turned: Float64Array, head: number, keys: Float32Array, shares: Float64Array): void {
  const { headDim: D, group, numKvHeads, sinks } = rows
  const stride = group * numKvHeads * D
  const count = turned.length / stride
  const logits = new Float64Array(shares.length)
  for (let n = 0; n < shares.length; n++) {
    let [sum, squares] = [0, 0]
    for (let i = 0; i < count; i++) {
      let dot = 0
      for (let d = 0; d < D; d++) dot += (turned[i * stride + head * D + d] as number) * (keys[n * D + d] as number)
      sum += dot
      squares += dot * dot
    }
    const mean = sum / count
    const variance = Math.max(0, squares / count - mean * mean)
    logits[n] = mean / Math.sqrt(D) + variance / (2 * D)
  }
  const open = logits.subarray(Math.min(sinks, logits.length))
  const most = open.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY)
  const total = open.reduce((sum, value) => sum + Math.exp(value - most), 0)
  for (let n = sinks; n < shares.length; n++) {
    shares[n] = (shares[n] as number) + Math.exp((logits[n] as number) - most) / total
  }
}

function norm(vectors: Float32Array, index: number, dim: number): number {
  let sum = 0
  for (let d = index * dim; d < (index + 1) * dim; d++) sum += (vectors[d] as number) ** 2
  return Math.sqrt(sum)
}
