/**
 * What a backend computes. Letters: T new tokens, S cached tokens, H query heads, K KV heads, G = H / K, D head dim of
 * queries and keys, E head dim of values, C rows of storage a head, W keep window. Arrays are row-major.
 *
 * Calls are synchronous but for `attendAsync`. The compiled backends check types, sizes and indices (KvasirError `invalid-argument`);
 * `reference.ts` (f64) checks nothing and says what the right answer is. An array that a call writes must not overlap
 * any other. NaN and infinite logits make their outputs NaN.
 */

import type { QuantizedType } from '../tensor/quantized-row.ts'

export type { QuantizedType } from '../tensor/quantized-row.ts'

/** Numbers one by one: IEEE binary32 in a Float32Array; binary16 or bfloat16 as bits in a Uint16Array. */
export type FloatType = 'f32' | 'f16' | 'bf16'

/** f32, or the bits of f16 or bf16. */
export type FloatArray = Float32Array | Uint16Array

/**
 * How rows of K and V are stored: number by number, or quantized, as runs of `rowBytes` bytes in a Uint8Array that end
 * with the scale of the row (src/tensor/quantized-row.ts).
 */
export type StorageType = FloatType | QuantizedType

/** Rows of K or V: `[rows, D]` numbers, or `[rows, rowBytes]` bytes. */
export type StorageArray = FloatArray | Uint8Array

/**
 * Where storage row r of KV head k lies: `head-major` `[K, C, D]`; `token-major` `[C, K, D]`; `shared` `[C, D]`, a pool
 * from which heads take rows, by `rows` or `pages`.
 */
export type RowLayout = 'head-major' | 'token-major' | 'shared'

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
  readonly u8: Uint8Array
  readonly i32: Int32Array
  /** Gives the bytes back; using a view afterwards is an error of the caller. */
  free(): void
}

/**
 * A run of stored tokens, the same number of storage rows for each KV head. Attention sees the concatenation of all
 * segments of a call; the order of rows has no meaning, lifetimes and positions have.
 */
export interface KeyValueSegment {
  /** `[K, C, D]`, or as `layout` says */
  readonly keys: StorageArray
  /** `[K, C, E]`, or as `layout` says */
  readonly values: StorageArray
  /** Of keys and values (default: f32, f16 for a Uint16Array, int8 for a Uint8Array); segments of a call may differ. */
  readonly storage?: StorageType
  /** Of keys alone, instead of `storage` */
  readonly keyStorage?: StorageType
  /** Of values alone, instead of `storage` */
  readonly valueStorage?: StorageType
  /** Default `head-major`. */
  readonly layout?: RowLayout
  /** C: entries of a head in the arrays below, and storage rows of a head without `pages`. */
  readonly capacity: number
  /** `[K]`: entries in use by each head, 0 <= lengths[k] <= C; what lies past them is never read. */
  readonly lengths: Int32Array
  /** `[K, C]`: added to the logits of each row; -Infinity hides the row. */
  readonly bias?: Float32Array
  /** `[K, C]`: row j is visible to queries at positions i with births[j] <= i < deaths[j]. Absent: born before all. */
  readonly births?: Int32Array
  /** `[K, C]`, absent: never dies. */
  readonly deaths?: Int32Array
  /** Row j is at position firstPosition + j. Without it and `positions`, rows have none: `left` and `right` don't act. */
  readonly firstPosition?: number
  /** `[K, C]`: the position of each row, instead of `firstPosition`. */
  readonly positions?: Int32Array
  /**
   * `[K, C]`: when present, the j-th entry of head k is storage row `rows[k * C + j]`; bias, births, deaths and
   * positions go by storage row too (firstPosition + row). `lengths` then counts the entries of this list.
   */
  readonly rows?: Int32Array
  /**
   * When present, entry j of head k is row j % pageSize of page `pages[k * pagesStride + floor(j / pageSize)]`, which
   * begins at storage row page * pageSize. The other arrays go by entry. Not together with `rows`.
   */
  readonly pages?: Int32Array
  readonly pageSize?: number
  /** Entries of `pages` a head; 0 (default): all heads share one table. */
  readonly pagesStride?: number
  /** Added to (f32) or allowed in (u8: 0 hides) each pair of query and entry. */
  readonly mask?: LogitMask
}

/** Element (head h, token t, entry j) is values[h * headStride + t * tokenStride + j]. A stride of 0 broadcasts. */
export interface LogitMask {
  /** Float32Array: added to the logits, -Infinity hides. Uint8Array: 0 hides. */
  readonly values: Float32Array | Uint8Array
  readonly headStride: number
  readonly tokenStride: number
}

/**
 * out[t, h] = sum_j softmax_j(logit[t, h, j]) v[j] over the rows that the query at position p = firstPosition + t sees,
 * with logit = softcap(scale * q[t, h] . k[j]) + bias[j] - alibiSlopes[h] * |p - position[j]| + mask[h, t, j] and
 * softcap(x) = softcap * tanh(x / softcap).
 */
export interface AttendArgs {
  /** `[T, H, D]`; a Uint16Array holds `queryStorage` */
  readonly query: FloatArray
  /** `[T, H, E]`, of the same type as `query`, written whole; rows that see nothing become zeros. */
  readonly output: FloatArray
  /** What a Uint16Array in `query` and `output` holds (default f16). */
  readonly queryStorage?: FloatType
  /** `[T, H]`: natural log of the sum of exponentials, sink included; -Infinity for rows that see nothing. */
  readonly lse?: Float32Array
  /** `[T, H, C]`: the logit of each entry of the only segment; -Infinity where it is not seen. Costs what writing costs. */
  readonly logits?: Float32Array
  readonly numTokens: number
  readonly numHeads: number
  readonly numKvHeads: number
  readonly headDim: number
  readonly valueDim: number
  readonly scale: number
  /** Position of query 0 on the axis of births, deaths and positions. */
  readonly firstPosition: number
  /** A query at p sees positions from p - left on (absent: all before it) ... */
  readonly left?: number
  /** ... up to p + right: 0 is causal, absent: all after it. Both act on rows that have a position. */
  readonly right?: number
  /** Positions below this are seen however far to the left (default 0). */
  readonly sinks?: number
  /** Above 0; absent: none. */
  readonly softcap?: number
  /** `[H]`; all segments must have positions. */
  readonly alibiSlopes?: Float32Array
  /** Rotates each query before it is used. */
  readonly rotation?: Rotation
  /**
   * K and V of all segments are stored transformed (src/tensor/hadamard.ts): queries are transformed after their rotation,
   * outputs back.
   */
  readonly hadamard?: boolean
  /** `[H]`: logit of a virtual row whose value is zero (gpt-oss); zeros are the smooth softmax. */
  readonly sinkLogits?: Float32Array
  readonly segments: readonly KeyValueSegment[]
}

/**
 * The arguments of a finished `attend`, with the `lse` that it gave; `output` is not touched. Adds to masses[s][k, j] the
 * sum of exp(logit - lse) over the tokens from `firstToken` on and the G query heads of KV head k: the share of their
 * attention that row j of segment s got. With the `logits` that `attend` gave, no products are computed anew.
 */
export interface WeighArgs extends AttendArgs {
  /** First token whose attention counts (default 0). */
  readonly firstToken?: number
  /** One for each segment: `[K, C]`, by the index that `bias` has. */
  readonly masses: readonly Float32Array[]
}

/** Rows of f32, and the storage that some of them go to. */
export interface RowTarget {
  /** `[T, K, D]` */
  readonly source: Float32Array
  /** `[K, C, D]`, or as `layout` says; rounds to nearest even. */
  readonly target: StorageArray
  /** Of `target` (default: f32, f16 for a Uint16Array, int8 for a Uint8Array). */
  readonly storage?: StorageType
  /** Default `head-major`. */
  readonly layout?: RowLayout
  /** Rotates each row on its way into storage. */
  readonly rotation?: Rotation
  /** Transforms each row then (src/tensor/hadamard.ts). */
  readonly hadamard?: boolean
  readonly headDim: number
  readonly capacity: number
}

/** Writes rows into storage: for head k and n < counts[k], row slots[k, n] of each target = its token tokens[k, n]. */
export interface StoreArgs {
  /** At most 3. */
  readonly targets: readonly RowTarget[]
  readonly numTokens: number
  readonly numKvHeads: number
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

/** Rotary positions: turns the first 2 * R components of a head, pair i by the angle of (cos[t, i], sin[t, i]). */
export interface Rotation {
  /** `[T, R]` */
  readonly cos: Float32Array
  /** `[T, R]` */
  readonly sin: Float32Array
  /** R */
  readonly rotaryPairs: number
  /** Pairs (2i, 2i + 1) instead of (i, i + R). */
  readonly isInterleaved?: boolean
}

/** Turns stored rows anew: row rows[n] of `target` becomes row rows[n] of `source`, rotated as token turns[n]. */
export interface TurnArgs {
  /** `[C, D]`, unrotated */
  readonly source: StorageArray
  /** `[C, D]`, of the same type */
  readonly target: StorageArray
  /** Of both (default: f32, f16 for a Uint16Array, int8 for a Uint8Array). */
  readonly storage?: StorageType
  /** Rows of both are stored transformed (src/tensor/hadamard.ts). */
  readonly hadamard?: boolean
  readonly headDim: number
  readonly capacity: number
  /** N: entries of `rows` and `turns` that count. */
  readonly count: number
  /** `[N]`, each at most once */
  readonly rows: Int32Array
  /** `[N]`, each below `numTokens` */
  readonly turns: Int32Array
  /** Of T tokens. */
  readonly rotation: Rotation
  readonly numTokens: number
}

/** Rotates in place. */
export interface RotateArgs extends Rotation {
  /** `[T, heads, D]` */
  readonly vectors: Float32Array
  readonly numTokens: number
  readonly numHeads: number
  readonly headDim: number
  /** Turns back: by the negative angle. */
  readonly isInverse?: boolean
}

/** A backend, opened. */
export interface Kernels {
  readonly name: BackendName
  /** What runs, for people: `native (avx512, 2 threads)`. */
  readonly description: string
  alloc(byteLength: number): Memory
  attend(args: AttendArgs): void
  /**
   * The same off the caller's thread where the backend can: until it settles, nothing may change the arrays of the
   * call. Short calls run at once, since handing them over would take longer.
   */
  attendAsync(args: AttendArgs): Promise<void>
  /** What attention each stored row gets; costs about as much as `attend`, so only for caches that ask. */
  weigh(args: WeighArgs): void
  store(args: StoreArgs): void
  /** @throws KvasirError `invalid-argument` on a NaN score; nothing is changed then. */
  retain(args: RetainArgs): void
  /** @throws KvasirError as `retain` */
  keep(args: KeepArgs): void
  select(args: SelectArgs): void
  turn(args: TurnArgs): void
  rotate(args: RotateArgs): void
}

export type BackendName = 'native' | 'wasm' | 'reference'
