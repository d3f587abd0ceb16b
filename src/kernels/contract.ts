/**
 * What a backend computes. Letters: T new tokens, S cached tokens, H query heads, K KV heads, G = H / K, D head dim of
 * queries and keys, E head dim of values, C rows of storage a head, W keep window. Arrays are row-major.
 *
 * Calls are synchronous but for `attendAsync`. All backends check types, sizes and indices (KvasirError
 * `invalid-argument`); `reference.ts` (f64) checks nothing and says what the right answer is. An array that a call writes must not overlap
 * any other. NaN and infinite logits make their outputs NaN.
 */

import type { AttendArgs, WeighArgs } from './attend-contract.ts'
import type { KeepArgs, RetainArgs, SelectArgs } from './retain-contract.ts'
import type { RotateArgs, StoreArgs, TurnArgs } from './row-contract.ts'
import type { SeekArgs } from './seek-contract.ts'
import type { Memory } from './storage-contract.ts'

export * from './attend-contract.ts'
export type * from './retain-contract.ts'
export type * from './row-contract.ts'
export type * from './seek-contract.ts'
export type * from './storage-contract.ts'

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
  seek(args: SeekArgs): void
  turn(args: TurnArgs): void
  rotate(args: RotateArgs): void
}

export type BackendName = 'native' | 'wasm' | 'reference'
