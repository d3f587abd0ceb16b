/** `seek`: where the keys may lie that queries score highest. */
import type { StorageArray, StorageType } from './storage-contract.ts'

/**
 * Each row bounds some keys: the greatest number of each of D channels, then the least. No key between can score more for a
 * query q than sum_d scale * q_d * (greatest_d where scale * q_d > 0, else least_d). Of each KV head, finds the `most` rows
 * by (score, row) whose score, the highest of those for the G query heads plus bias, is above -Infinity and not NaN.
 */
export interface SeekArgs {
  /** `[H, D]` */
  readonly query: Float32Array
  /** `[K, C, 2 D]` */
  readonly bounds: StorageArray
  /** Of `bounds` (default: f32, f16 for a Uint16Array, int8 for a Uint8Array). */
  readonly storage?: StorageType
  /** `[K, C]`: added to the score of each row; -Infinity: it is passed over */
  readonly bias: Float32Array
  readonly numHeads: number
  readonly numKvHeads: number
  readonly headDim: number
  readonly scale: number
  /** C */
  readonly capacity: number
  /** Rows 0 .. numRows - 1 of each head are looked at. */
  readonly numRows: number
  /** N */
  readonly most: number
  /** Out `[K, N]`: rows, ascending */
  readonly rows: Int32Array
  /** Out `[K]` */
  readonly lengths: Int32Array
}
