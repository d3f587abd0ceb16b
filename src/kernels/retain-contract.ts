/** `retain`, `keep` and `select`: which tokens stay. */
import type { RowTarget } from './row-contract.ts'

/**
 * The kept set of one layer: for each KV head, which W tokens of the stream so far stay. The order is (score,
 * position): higher scores win, the newer of two equals wins. A token of score -Infinity is passed over as though it
 * had never come, but for its position. So the set never shrinks. All arrays belong to the cache; `retain` alone
 * writes them.
 */
export interface KeptSet {
  readonly numKvHeads: number
  /** W: rows a head. */
  readonly window: number
  /** The first `sinks` tokens of the stream always stay ... */
  readonly sinks: number
  /** ... and so do the last `recent`; the other W - sinks - recent rows go to the best scores. */
  readonly recent: number
  /** `[K, W]` score of each row in use */
  readonly scores: Float32Array
  /** `[K, W]` position of each row in use */
  readonly positions: Float64Array
  /** `[K]` rows in use: rows 0 to lengths[k] - 1 */
  readonly lengths: Int32Array
  /** `[K, W]` min-heap, by (score, position), of the rows that compete */
  readonly heap: Int32Array
  /** `[K]` */
  readonly heapLengths: Int32Array
  /** `[K]` tokens taken in so far: those passed over don't count */
  readonly accepted: Float64Array
  /** `[K, recent]` the row of each recent token, by its number among the accepted, modulo `recent` */
  readonly ring: Int32Array
}

/** Offers T tokens to the kept set. */
export interface RetainArgs {
  readonly kept: KeptSet
  /** `[T, K]` retention scores; NaN is refused before anything is written. */
  readonly scores: Float32Array
  readonly numTokens: number
  /** Position of token 0: the number of tokens that came before. */
  readonly firstPosition: number
  /**
   * Out `[K, W]`, when wanted: first token t (0..T-1) at which the row's old token is gone, NEVER when it survives the
   * call. A decode step leaves it out: filling it is the only part that is not O(T log W).
   */
  readonly rowDeaths?: Int32Array
  /** Out `[K, T]`: first token t at which the new token is gone; t itself when it is never visible; NEVER as above. */
  readonly tokenDeaths: Int32Array
  /** Out `[K]`: how many new tokens stay. */
  readonly counts: Int32Array
  /** Out `[K, min(T, W)]`: those tokens, ascending ... */
  readonly tokens: Int32Array
  /** Out `[K, min(T, W)]`: ... and the row that each takes. */
  readonly slots: Int32Array
  /** Out `[K, min(T, W)]`, when wanted: the position of the old token that had this row, NaN where none had ... */
  readonly leftPositions?: Float64Array
  /** Out, with them: ... and its score. */
  readonly leftScores?: Float32Array
}

/** `retain`, and in the same call a `store` to each target of the tokens that stay, in the rows that they take. */
export interface KeepArgs extends RetainArgs {
  /** At most 3, each with W rows a head at least. */
  readonly targets: readonly RowTarget[]
}

/** The best `window` of `numRows` scores (no NaN) for each head, by (score, row), without -Infinity; rows ascend. */
export interface SelectArgs {
  /** `[K, C]` */
  readonly scores: Float32Array
  readonly numKvHeads: number
  readonly capacity: number
  readonly numRows: number
  readonly window: number
  /** Out `[K, C]`: the chosen rows. */
  readonly rows: Int32Array
  /** Out `[K]` */
  readonly lengths: Int32Array
}
