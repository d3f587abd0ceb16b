/**
 * What a backend computes. Letters: T new tokens, S cached tokens, H query heads, K KV heads, G = H / K, D head dim of
 * queries and keys, E head dim of values, C rows of storage a head, W keep window. Arrays are row-major.
 *
 * Calls are synchronous. The compiled backends check types, sizes and indices (KvasirError `invalid-argument`);
 * `reference.ts` (f64) checks nothing and says what the right answer is. An array that a call writes must not overlap
 * any other. NaN and infinite logits make their outputs NaN.
 */

/** How K and V are stored. f16 is IEEE binary16, held in a Uint16Array. */
export type StorageType = 'f32' | 'f16'

/** f32 or the bits of f16. */
export type StorageArray = Float32Array | Uint16Array

/** "Never": a death after every query, or (negated) a birth before every query. */
export const NEVER = 0x7fffffff

/**
 * Memory that a backend can read without a copy. Views are made on demand because WebAssembly memory moves when it
 * grows: take a view, use it, don't keep it across an `alloc`.
 */
export interface Memory {
  readonly byteLength: number
  readonly f32: Float32Array
  readonly f64: Float64Array
  readonly u16: Uint16Array
  readonly i32: Int32Array
  /** Gives the bytes back; using a view afterwards is an error of the caller. */
  free(): void
}

/**
 * A run of stored tokens, the same number of storage rows for each KV head. Attention sees the concatenation of all
 * segments of a call; the order of rows has no meaning, lifetimes have.
 */
export interface KeyValueSegment {
  /** `[K, C, D]`, or `[C, K, D]` when `isTokenMajor` */
  readonly keys: StorageArray
  /** `[K, C, E]`, or `[C, K, E]` when `isTokenMajor` */
  readonly values: StorageArray
  readonly isTokenMajor?: boolean
  /** C */
  readonly capacity: number
  /** `[K]`: rows in use by each head, 0 <= lengths[k] <= C; rows past it are never read. */
  readonly lengths: Int32Array
  /** `[K, C]`: added to the logits of each row; -Infinity hides the row. */
  readonly bias?: Float32Array
  /** `[K, C]`: row j is visible to queries at positions i with births[j] <= i < deaths[j]. Absent: born before all. */
  readonly births?: Int32Array
  /** `[K, C]`, absent: never dies. */
  readonly deaths?: Int32Array
  /**
   * `[K, C]`: when present, the j-th row of head k is storage row `rows[k * C + j]`; bias, births and deaths go by
   * storage row too. `lengths` then counts the entries of this list.
   */
  readonly rows?: Int32Array
}

/** out[t, h] = sum_j softmax_j(scale * q[t, h] . k[j] + bias[j]) v[j] over the rows visible at position first + t. */
export interface AttendArgs {
  /** `[T, H, D]` */
  readonly query: Float32Array
  /** `[T, H, E]`, written whole; rows that see nothing become zeros. */
  readonly output: Float32Array
  /** `[T, H]`: natural log of the sum of exponentials; -Infinity for rows that see nothing. */
  readonly lse?: Float32Array
  readonly numTokens: number
  readonly numHeads: number
  readonly numKvHeads: number
  readonly headDim: number
  readonly valueDim: number
  readonly scale: number
  /** Position of query 0 on the axis of births and deaths. */
  readonly firstPosition: number
  readonly segments: readonly KeyValueSegment[]
}

/** Writes rows of f32 into storage: for head k and n < counts[k], storage row slots[k, n] = source token tokens[k, n]. */
export interface StoreArgs {
  /** `[T, K, D]` */
  readonly source: Float32Array
  /** `[K, C, D]`; f16 rounds to nearest even. */
  readonly target: StorageArray
  readonly numTokens: number
  readonly numKvHeads: number
  readonly headDim: number
  readonly capacity: number
  /** `[K]` */
  readonly counts: Int32Array
  /** `[K, stride]` source tokens */
  readonly tokens: Int32Array
  /** `[K, stride]` target rows */
  readonly slots: Int32Array
  readonly stride: number
}

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

/** Rotates the first 2 * R components of each head in place; half split: pairs (i, i + R). */
export interface RotateArgs {
  /** `[T, heads, D]` */
  readonly vectors: Float32Array
  /** `[T, R]` */
  readonly cos: Float32Array
  /** `[T, R]` */
  readonly sin: Float32Array
  readonly numTokens: number
  readonly numHeads: number
  readonly headDim: number
  readonly rotaryPairs: number
}

/** A backend, opened. */
export interface Kernels {
  readonly name: BackendName
  /** What runs, for people: `native (avx512, 2 threads)`. */
  readonly description: string
  alloc(byteLength: number): Memory
  attend(args: AttendArgs): void
  store(args: StoreArgs): void
  /** @throws KvasirError `invalid-argument` on a NaN score; nothing is changed then. */
  retain(args: RetainArgs): void
  select(args: SelectArgs): void
  rotate(args: RotateArgs): void
}

export type BackendName = 'native' | 'wasm' | 'reference'
