/**
 * What a policy is to a cache: a score, and what it takes to compute it. How many rows stay, which are protected and who
 * wins a tie is decided in ranked/selection.ts for all policies alike.
 */
import type { ScoreTokens } from './contract.ts'
import type { RowProducts } from './ranked/products.ts'

/** A score of tokens by themselves: never changes, so the kernels keep the best at every step. */
export interface StaticRetention {
  readonly kind: 'static'
  readonly rankBy: 'importance' | 'recency' | ScoreTokens
}

/** A score of kept rows among each other, made anew whenever a head has more rows than it may. */
export interface RescoringRetention {
  readonly kind: 'rescoring'
  readonly needs: RescoringNeeds
  /** Heads have nothing to do with each other: where they share no budget, they are ranked on different steps. */
  readonly isByHead?: boolean
  /**
   * Writes scores.get(k)[n] for row n of head k, rows by position, for the heads that are ranked: all, unless `isByHead`.
   * NaN is an error, -Infinity is never kept.
   */
  readonly rescore: (rows: KeptRows, scores: ReadonlyMap<number, Float64Array>) => void
}

export interface RescoringNeeds {
  /** Attention mass: that of all queries since a row came, or that of the last so many. */
  readonly mass?: 'all' | number
  /** Queries before rotation, a sample of so many of all that came. */
  readonly queries?: number
}

export type Retention = StaticRetention | RescoringRetention

/** The rows of one layer, as a policy sees them: by head, by position. Arrays are made when asked for. */
export interface KeptRows {
  readonly numKvHeads: number
  /** G: query heads of a KV head. */
  readonly group: number
  readonly headDim: number
  readonly valueDim: number
  readonly seenTokens: number
  /** The last rows of each head that stay whatever their score. */
  readonly recent: number
  readonly sinks: number
  /** `[n]`, ascending */
  positions(head: number): Float64Array
  /** `[n, D]` as attention reads them, or those of rows `from` to before `end`. */
  keys(head: number, from?: number, end?: number): Float32Array
  /** `[n, E]` */
  values(head: number, from?: number, end?: number): Float32Array
  /** `[n]`: what `needs.mass` asks for, summed over queries and the G heads. */
  mass(head: number): Float32Array
  /** How many queries the mass is of, where it is that of the last ones. */
  readonly massQueries: number
  /** `[n]` the score that a row had when it was last ranked; NaN: never. */
  earlier(head: number): Float64Array
  /** Products with keys and values, on the kernels' threads. */
  readonly dense: RowProducts
  /** What `needs.queries` asks for. */
  readonly sample: QuerySample | undefined
}

/** Queries of all heads, unrotated, and how positions rotate them. */
export interface QuerySample {
  readonly count: number
  /** `[count, H, D]` */
  readonly queries: Float32Array
  /** `[R]` cosines and sines of the mean rotation of the next `length` positions; undefined: nothing is rotated. */
  meanRotation(length: number): { cos: Float64Array; sin: Float64Array; isInterleaved: boolean } | undefined
}
