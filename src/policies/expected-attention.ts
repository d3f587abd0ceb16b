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
  isByHead: true,
  rescore(rows, scores) {
    const sample = rows.sample as QuerySample
    const rotation = sample.count > 0 ? sample.meanRotation(futurePositions) : undefined
    for (const [k, row] of scores) {
      if (sample.count === 0) row.fill(1)
      else row.set(expectedShares(rows, k, turnQueries(rows, k, sample, rotation)))
      const values = rows.values(k)
      for (let n = 0; n < row.length; n++) row[n] = (row[n] as number) * normOf(values, n, rows.valueDim)
    }
  },
}

/**
 * The sample of the query heads of a KV head, `[G, count, D]`, as it would stand at the mean of the positions to come: a
 * linear map, so mean and covariance follow.
 */
function turnQueries(
  { headDim: D, group, numKvHeads }: KeptRows,
  head: number,
  { count, queries }: QuerySample,
  rotation: MeanRotation | undefined,
): Float32Array {
  const turned = new Float32Array(group * count * D)
  for (let g = 0; g < group; g++) {
    for (let i = 0; i < count; i++) {
      const from = (i * numKvHeads * group + head * group + g) * D
      const to = (g * count + i) * D
      turned.set(queries.subarray(from, from + D), to)
      if (rotation) turn(turned.subarray(to, to + D), rotation)
    }
  }
  return turned
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

/** What the query heads of a KV head are expected to give its rows, on average. `queries` is `[G, count, D]`. */
function expectedShares(rows: KeptRows, head: number, queries: Float32Array): Float64Array {
  const { headDim: D, group, sinks, dense } = rows
  const keys = rows.keys(head)
  const length = keys.length / D
  const shares = new Float64Array(length)
  const products = dense.products(queries, keys, D)
  for (let g = 0; g < group; g++) {
    const own = products.subarray((g * products.length) / group, ((g + 1) * products.length) / group)
    addShares(expectedLogits(own, length, D), sinks, 1 / group, shares)
  }
  return shares
}

/** From q . k of a sample and rows, `[count, n]`. The form of the covariance is the variance of q . k over the sample. */
function expectedLogits(products: Float32Array, length: number, headDim: number): Float64Array {
  const count = products.length / length
  const [sums, squares] = [new Float64Array(length), new Float64Array(length)]
  for (let i = 0, at = 0; i < count; i++) {
    for (let n = 0; n < length; n++, at++) {
      const product = products[at] as number
      sums[n] = (sums[n] as number) + product
      squares[n] = (squares[n] as number) + product * product
    }
  }
  for (let n = 0; n < length; n++) {
    const mean = (sums[n] as number) / count
    const variance = Math.max(0, (squares[n] as number) / count - mean * mean)
    sums[n] = mean / Math.sqrt(headDim) + variance / (2 * headDim)
  }
  return sums
}

/** Adds `factor` times the softmax of the logits from `first` on. */
function addShares(logits: Float64Array, first: number, factor: number, shares: Float64Array): void {
  let [most, total] = [Number.NEGATIVE_INFINITY, 0]
  for (let n = first; n < logits.length; n++) most = Math.max(most, logits[n] as number)
  for (let n = first; n < logits.length; n++) {
    logits[n] = Math.exp((logits[n] as number) - most)
    total += logits[n] as number
  }
  for (let n = first; n < logits.length; n++)
    shares[n] = (shares[n] as number) + (factor * (logits[n] as number)) / total
}
