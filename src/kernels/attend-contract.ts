/** `attend` and `weigh`: stored tokens, queries over them, and what each token got. */
import type { Rotation } from './row-contract.ts'
import type { FloatArray, FloatType, RowLayout, StorageArray, StorageType } from './storage-contract.ts'

/** "Never": a death after every query, or (negated) a birth before every query. */
export const NEVER = 0x7fffffff

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
