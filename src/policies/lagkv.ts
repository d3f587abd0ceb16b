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
    rescore(rows, scores) {
      for (const [k, row] of scores.entries()) {
        const earlier = rows.earlier(k)
        const judged = judge(rows, k, lag, earlier)
        for (let n = 0; n < row.length; n++) row[n] = judged[n] as number
      }
    },
  }
}

/** Scores of one head: what was judged before stays as it was. */
function judge(rows: KeptRows, head: number, lag: number, earlier: Float64Array): Float64Array {
  const positions = rows.positions(head)
  const partition = positions.map((position) => Math.floor((position - rows.sinks) / lag))
  const complete = Math.floor((rows.seenTokens - rows.sinks) / lag)
  const scores = new Float64Array(positions.length).fill(1)
  let [keys, values]: (Float32Array | undefined)[] = []
  for (let from = 0; from < positions.length; ) {
    const number = partition[from] as number
    const end = endOf(partition, from)
    // Of a partition that was judged, earlier scores are below 1.
    const isJudged = (earlier[from] as number) < 1
    const next = end < positions.length && partition[end] === number + 1 ? endOf(partition, end) : end
    if (isJudged) scores.set(earlier.subarray(from, end), from)
    else if (number >= 0 && number + 1 < complete && next > end) {
      keys ??= rows.keys(head)
      values ??= rows.values(head)
      scores.set(lagScores(keys, values, rows, { from, end, next }), from)
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
function lagScores(
  keys: Float32Array,
  values: Float32Array,
  { headDim, valueDim }: Pick<KeptRows, 'headDim' | 'valueDim'>,
  range: Range,
): Float64Array {
  const raw = lagRaw(keys, values, { headDim, valueDim }, range)
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
function shares(vectors: Float32Array, dim: number, { from, end, next }: Range): Float64Array {
  const low = new Float64Array(dim).fill(Number.POSITIVE_INFINITY)
  const high = new Float64Array(dim).fill(Number.NEGATIVE_INFINITY)
  for (let n = end; n < next; n++) {
    for (let d = 0; d < dim; d++) {
      const value = vectors[n * dim + d] as number
      low[d] = Math.min(low[d] as number, value)
      high[d] = Math.max(high[d] as number, value)
    }
  }
  const deviations = Float64Array.from({ length: end - from }, (_, i) => {
    const scaled = Float64Array.from({ length: dim }, (_, d) => {
      const width = (high[d] as number) - (low[d] as number)
      // A channel that is constant in the reference says nothing.
      return width > 0 ? ((vectors[(from + i) * dim + d] as number) - (low[d] as number)) / width : 0
    })
    return deviation(scaled)
  })
  const most = Math.max(...deviations)
  const powers = deviations.map((value) => Math.exp(value - most))
  const total = powers.reduce((a, b) => a + b, 0)
  return powers.map((power) => power / total)
}

/** Unbiased; 0 for a single channel. */
function deviation(values: Float64Array): number {
  if (values.length < 2) return 0
  const mean = values.reduce((a, b) => a + b, 0) / values.length
  return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1))
}
