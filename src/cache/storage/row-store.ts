/**
 * Where the rows of K and V of one layer of one sequence lie. A cache numbers the rows of each KV head from 0 on without
 * gaps; a store knows the memory behind each number. Everything that knows how a row is stored is here and below:
 * caches and policies see f32.
 */
import type { AttendArgs, Kernels, KeyValueSegment, Rotation, RowTarget } from '../../kernels/index.ts'
import { weighArgs } from '../attend-args.ts'
import type { SharedRows } from '../contract.ts'
import type { Room } from '../room.ts'
import type { StateVisitor } from '../snapshot/state.ts'

/** What will be written to the rows of each head. */
export interface Writes {
  /** Tokens; 0 for a length that is known long before its rows are written. */
  readonly count: number
  /** Which rows: the last `count`, any `count`, or all besides, by `turn`. */
  readonly rows: 'last' | 'any' | 'all'
  /** Rows of all heads together over which others are moved. */
  readonly moved?: number
  /** Rows that stay when all is written, where these are fewer. */
  readonly limit?: RowLimit | undefined
}

export interface RowLimit {
  /** A head, or of heads that share theirs in the mean. */
  readonly rows: number
  readonly isShared: boolean
}

/** Which source token goes to which row, for each KV head: counts[k] pairs (tokens[k, n], slots[k, n]). */
export interface RowList {
  /** `[K]` */
  readonly counts: Int32Array
  /** `[K, stride]`, ascending */
  readonly tokens: Int32Array
  /** `[K, stride]` */
  readonly slots: Int32Array
  readonly stride: number
}

/** New tokens: `key [T, K, D]`, `value [T, K, E]`. */
export interface NewRows {
  readonly key: Float32Array
  readonly value: Float32Array
  readonly numTokens: number
}

/** Rows to be rotated anew: row rows[n] of head heads[n], each once, by the rotation of token turns[n] of a table. */
export interface TurnedRows {
  readonly heads: Int32Array
  readonly rows: Int32Array
  readonly turns: Int32Array
  readonly rotation: Rotation
  /** Of the table. */
  readonly numTokens: number
}

/** What a cache says of its rows to attention, by row: fields of `KeyValueSegment`. */
export interface RowFacts
  extends Pick<KeyValueSegment, 'bias' | 'births' | 'deaths' | 'positions' | 'firstPosition' | 'rows'> {
  /** Tokens that had come to the store before the one at 0 of the axis of births. */
  readonly origin: number
}

/** The rows of one layer. */
export interface RowStore {
  /** C: rows that each head can have without `reserve` having to change it. */
  readonly capacity: number
  /** Bytes of the rows that this store holds, shared ones included. */
  readonly bytes: number
  /**
   * Makes rows 0 .. lengths[k] - 1 of each head exist, and those writable that will be written.
   * @throws KvasirError `out-of-memory`; nothing has changed then
   */
  reserve(lengths: Int32Array, writes: Writes): void
  /** Says what `reserve` would take of a pool. */
  roomFor(lengths: Int32Array, writes: Writes, room: Room): void
  /** Rows past lengths[k] are no longer needed. */
  release(lengths: Int32Array): void
  /** Writes the next tokens to rows; with `turn`, keys are rotated on the way in and kept as they came besides. */
  write(input: NewRows, rows: RowList, turn?: Rotation): void
  /**
   * Where `write` would put rows, for calls that store what they keep: entry n of a list goes to row slots[k, n] of each.
   * Absent where rows have no place of their own until they are written.
   */
  readonly targets?: ((input: NewRows, turn?: Rotation) => RowTarget[]) | undefined
  /** The rest of `write`, where the caller has stored the rows in `targets`. */
  written?(input: NewRows, rows: RowList, turn?: Rotation): void
  /** Nobody asks any more for what queries before the last token saw. */
  settle(): void
  /** The next token to be written is number `seen`: those from there on are forgotten. */
  rewind(seen: number): void
  /** Rotates rows anew from the keys as they came. */
  turn(turned: TurnedRows): void
  /** Copies rows over others of the same head: from[n] over to[n]. */
  move(head: number, from: Int32Array, to: Int32Array): void
  /** Keys as attention sees them, or values, of some rows of a head, as f32: `[rows, D]` or `[rows, E]`. */
  read(which: 'keys' | 'values', head: number, rows: Int32Array): Float32Array
  /** How the kernels find rows 0 .. lengths[k] - 1. The first segment has an entry for each row. */
  segments(lengths: Int32Array, facts: RowFacts): KeyValueSegment[]
  /** Adds what entry j of the other segments got, `parts[n][k, j]`, to what their rows got, `[K, C]`. */
  collect(parts: readonly Float32Array[], into: Float32Array): void
  /** Whether `visitRows` can begin with another row than the first. */
  readonly isDivisible: boolean
  /** Rows `from` .. lengths[k] - 1 of each head as opaque bytes, one plane after the other; reading makes them exist. */
  visitRows(visitor: StateVisitor, lengths: Int32Array, from?: number): void
  /**
   * Rows `first` .. first + count - 1 of each head, held together with this store; only of stores that have pages.
   * Undefined where they don't fill pages.
   */
  share?(first: number, count: number): SharedRows | undefined
  /** Appends such rows after `length` rows of each head; false, and nothing has changed, where they don't fit. */
  adopt?(rows: SharedRows, length: number): boolean
  /** Another store with the same rows. */
  fork(lengths: Int32Array): RowStore
  checkIntegrity(): void
  free(): void
}

/** The attention that each row of a store got, added to `masses` `[K, C]`; `args.segments` are those of the store. */
export function weighRows(
  kernels: Kernels,
  store: RowStore,
  args: AttendArgs,
  masses: Float32Array,
  firstToken?: number,
): void {
  const parts = args.segments.slice(1).map(({ capacity }) => new Float32Array(args.numKvHeads * capacity))
  kernels.weigh(weighArgs(args, [masses, ...parts], firstToken))
  store.collect(parts, masses)
}

/** The largest of `[K]` lengths, without the iterator of a spread. */
export function mostOf(lengths: Int32Array): number {
  let most = 0
  for (let k = 0; k < lengths.length; k++) most = Math.max(most, lengths[k] as number)
  return most
}

/** Every new token, to the rows from firstRows[k] on, in order. */
export function appendedRows(firstRows: Int32Array, numTokens: number): RowList {
  const numKvHeads = firstRows.length
  const [tokens, slots] = [new Int32Array(numKvHeads * numTokens), new Int32Array(numKvHeads * numTokens)]
  for (let k = 0; k < numKvHeads; k++) {
    for (let t = 0; t < numTokens; t++) {
      tokens[k * numTokens + t] = t
      slots[k * numTokens + t] = (firstRows[k] as number) + t
    }
  }
  return { counts: new Int32Array(numKvHeads).fill(numTokens), tokens, slots, stride: numTokens }
}

/** The most pages that heads of at most these lengths take, within a limit. */
export function pagesWithin(lengths: Int32Array, pageSize: number, limit?: RowLimit): number {
  const { rows = Number.POSITIVE_INFINITY, isShared = false } = limit ?? {}
  const own = isShared ? Number.POSITIVE_INFINITY : rows
  let pages = 0
  for (let k = 0; k < lengths.length; k++) pages += Math.ceil(Math.min(lengths[k] as number, own) / pageSize)
  // However rows are divided among heads, each has at most one page that is not full.
  const together = lengths.length + Math.floor((lengths.length * (rows - 1)) / pageSize)
  return isShared ? Math.min(pages, together) : pages
}
