/**
 * Expected Attention (Devoto et al. 2025): what queries to come will attend to, if they are distributed as those so far.
 * From a sample of queries before rotation, their mean and covariance; turned by the mean rotation of the next 512
 * positions; z = mu . k / sqrt(d) + k' Sigma k / (2 d); softmax over the rows but the sinks, mean over the query heads of
 * the KV head, times the norm of the value.
 */
import type { KeptRows, QuerySample, RescoringRetention } from '../cache/retention.ts'
import { normOf } from './vectors.ts'

type MeanRotation = NonNullable<ReturnType<QuerySample['meanRotation']>>

const futurePositions = 512
const sampleSize = 64

export const expectedAttention: RescoringRetention = {
  kind: 'rescoring',
  needs: { queries: sampleSize },
  rescore(rows, scores) {
    const sample = rows.sample as QuerySample
    const turned = turnQueries(rows, sample)
    for (const [k, row] of scores.entries()) {
      row.fill(sample.count > 0 ? 0 : 1)
      const keys = sample.count > 0 ? rows.keys(k) : undefined
      for (let g = 0; g < rows.group && keys; g++) addHead(rows, turned[k * rows.group + g] as Float32Array, keys, row)
      const values = rows.values(k)
      const factor = sample.count > 0 ? 1 / rows.group : 1
      for (let n = 0; n < row.length; n++) {
        row[n] = (row[n] as number) * factor * normOf(values, n, rows.valueDim)
      }
    }
  },
}

/**
 * The sample of each head, `[count, D]`, as it would stand at the mean of the positions to come: a linear map, so mean
 * and covariance follow.
 */
function turnQueries({ headDim: D, group, numKvHeads }: KeptRows, sample: QuerySample): Float32Array[] {
  const numHeads = group * numKvHeads
  const rotation = sample.count > 0 ? sample.meanRotation(futurePositions) : undefined
  return Array.from({ length: numHeads }, (_, head) => {
    const queries = new Float32Array(sample.count * D)
    for (let i = 0; i < sample.count; i++) {
      const at = (i * numHeads + head) * D
      queries.set(sample.queries.subarray(at, at + D), i * D)
      if (rotation) turn(queries.subarray(i * D, (i + 1) * D), rotation)
    }
    return queries
  })
}

function turn(query: Float32Array, { cos, sin, isInterleaved }: MeanRotation): void {
  for (let i = 0; i < cos.length; i++) {
    const first = isInterleaved ? 2 * i : i
    const second = isInterleaved ? first + 1 : first + cos.length
    const [a, b] = [query[first] as number, query[second] as number]
    query[first] = a * (cos[i] as number) - b * (sin[i] as number)
    query[second] = b * (cos[i] as number) + a * (sin[i] as number)
  }
}

/** Adds the expected shares of one query head. The covariance form is the variance of q . k over the sample. */
function addHead(
  { headDim: D, sinks, dense }: KeptRows,
  queries: Float32Array,
  keys: Float32Array,
  shares: Float64Array,
): void {
  const count = queries.length / D
  const length = shares.length
  const products = dense.products(queries, keys, D)
  const [sums, squares] = [new Float64Array(length), new Float64Array(length)]
  for (let i = 0; i < count; i++) {
    const row = products.subarray(i * length, (i + 1) * length)
    for (let n = 0; n < length; n++) {
      const product = row[n] as number
      sums[n] = (sums[n] as number) + product
      squares[n] = (squares[n] as number) + product * product
    }
  }
  const logits = sums.map((sum, n) => {
    const mean = sum / count
    const variance = Math.max(0, (squares[n] as number) / count - mean * mean)
    return mean / Math.sqrt(D) + variance / (2 * D)
  })
  const open = logits.subarray(Math.min(sinks, length))
  const most = open.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY)
  const powers = open.map((value) => Math.exp(value - most))
  const total = powers.reduce((sum, power) => sum + power, 0)
  for (let n = 0; n < powers.length; n++)
    shares[sinks + n] = (shares[sinks + n] as number) + (powers[n] as number) / total
}
