/**
 * LagKV (Liang et al. 2025): tokens after the sinks form partitions of `lag`. A partition is judged once, when the next
 * one is complete: K and V are scaled by the next partition's minimum and maximum of each channel, the score is the
 * softmax over the partition of a token's standard deviation over channels, mean of K and V; what counts is the rank
 * within the partition. Tokens that are not judged yet score 1.
 */
import type { KeptRows, RescoringRetention } from '../cache/retention.ts'

export function lagkv(lag: number): RescoringRetention {
  return {
    kind: 'rescoring',
    needs: {},
    isByHead: true,
    rescore(rows, scores) {
      for (const [k, row] of scores) {
        const earlier = rows.earlier(k)
        const judged = judge(rows, k, lag, earlier)
        for (let n = 0; n < row.length; n++) row[n] = judged[n] as number
      }
    },
  }
}

/** Scores of one head: what was judged before stays as it was. */
function judge(rows: KeptRows, head: number, lag: number, earlier: Float64Array): Float64Array {
  const partition = rows.positions(head).map((position) => Math.floor((position - rows.sinks) / lag))
  const complete = Math.floor((rows.seenTokens - rows.sinks) / lag)
  const scores = new Float64Array(partition.length).fill(1)
  for (let from = 0; from < partition.length; ) {
    const number = partition[from] as number
    const end = endOf(partition, from)
    // Of a partition that was judged, earlier scores are below 1.
    const isJudged = (earlier[from] as number) < 1
    const next = end < partition.length && partition[end] === number + 1 ? endOf(partition, end) : end
    if (isJudged) scores.set(earlier.subarray(from, end), from)
    else if (number >= 0 && number + 1 < complete && next > end) {
      const [keys, values] = [rows.keys(head, from, next), rows.values(head, from, next)]
      scores.set(ranks(lagRaw(keys, values, rows, { from: 0, end: end - from, next: next - from })), from)
    }
    from = end
  }
  return scores
}

function endOf(partition: Float64Array, from: number): number {
  let end = from
  while (end < partition.length && partition[end] === partition[from]) end++
  return end
}

interface Range {
  readonly from: number
  readonly end: number
  /** Where the reference, which begins at `end`, ends. */
  readonly next: number
}

/** Ranks within a partition, from 0 to below 1. */
function ranks(raw: Float64Array): Float64Array {
  const order = Array.from(raw, (_, n) => n).sort((a, b) => (raw[a] as number) - (raw[b] as number) || a - b)
  const scores = new Float64Array(raw.length)
  for (const [rank, n] of order.entries()) scores[n] = rank / raw.length
  return scores
}

/** Before ranking: mean of the shares of K and V. */
export function lagRaw(
  keys: Float32Array,
  values: Float32Array,
  { headDim, valueDim }: Pick<KeptRows, 'headDim' | 'valueDim'>,
  range: Range,
): Float64Array {
  const ofKeys = shares(keys, headDim, range)
  const ofValues = shares(values, valueDim, range)
  return ofKeys.map((share, n) => (share + (ofValues[n] as number)) / 2)
}

/** Softmax over a partition of the standard deviations of its tokens, scaled by the reference. */
function shares(vectors: Float32Array, dim: number, range: Range): Float64Array {
  const { low, factors } = scaleOf(vectors, dim, range)
  const deviations = Float64Array.from({ length: range.end - range.from }, (_, i) => {
    return deviation(vectors, (range.from + i) * dim, low, factors)
  })
  const most = deviations.reduce((a, b) => Math.max(a, b))
  const powers = deviations.map((value) => Math.exp(value - most))
  const total = powers.reduce((a, b) => a + b, 0)
  return powers.map((power) => power / total)
}

/** Minimum and 1 / (maximum - minimum) of each channel of the reference; 0 where it is constant and says nothing. */
function scaleOf(vectors: Float32Array, dim: number, { end, next }: Range) {
  const low = new Float64Array(dim).fill(Number.POSITIVE_INFINITY)
  const high = new Float64Array(dim).fill(Number.NEGATIVE_INFINITY)
  for (let n = end; n < next; n++) {
    for (let d = 0; d < dim; d++) {
      const value = vectors[n * dim + d] as number
      if (value < (low[d] as number)) low[d] = value
      if (value > (high[d] as number)) high[d] = value
    }
  }
  const factors = high.map((value, d) => (value > (low[d] as number) ? 1 / (value - (low[d] as number)) : 0))
  return { low, factors }
}

/** Of the scaled channels of the vector that begins at `start`. Unbiased; 0 for a single channel. */
function deviation(vectors: Float32Array, start: number, low: Float64Array, factors: Float64Array): number {
  const dim = low.length
  if (dim < 2) return 0
  const scaled = (d: number) => ((vectors[start + d] as number) - (low[d] as number)) * (factors[d] as number)
  let sum = 0
  for (let d = 0; d < dim; d++) sum += scaled(d)
  const mean = sum / dim
  let squares = 0
  for (let d = 0; d < dim; d++) squares += (scaled(d) - mean) ** 2
  return Math.sqrt(squares / (dim - 1))
}
