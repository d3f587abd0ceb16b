/** `store`, `turn` and `rotate`: rows on their way into storage, and rotary positions. */
import type { RowLayout, StorageArray, StorageType } from './storage-contract.ts'

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
