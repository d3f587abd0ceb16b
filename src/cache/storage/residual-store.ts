/**
 * Rows of few bits, of which the last R tokens of the stream are stored in f16 besides: a query sees those from there.
 * Each token is written to both at once, so nothing is converted later: it is a matter of lifetimes. The copy of the
 * token at position p is seen by queries before p + R, its row in the main store by those from there on; a chunk of
 * tokens thus gives what its tokens give one at a time. While a chunk is attended all of its tokens have copies.
 */
import { type KeyValueSegment, NEVER, type Rotation, type RowTarget } from '../../kernels/index.ts'
import { Room } from '../room.ts'
import { invalidState, type StateVisitor } from '../snapshot/state.ts'
import { ContiguousStore } from './contiguous-store.ts'
import type { PlaneStore, StoreOptions } from './plane-store.ts'
import { flagsOf, RecentRows } from './recent-rows.ts'
import type { NewRows, RowFacts, RowList, RowStore, TurnedRows, Writes } from './row-store.ts'
import { appendedRows } from './row-store.ts'
import { residualTypes } from './row-types.ts'

export interface ResidualOptions extends StoreOptions {
  /** A store for R rows a head in f16. */
  readonly createRing: () => PlaneStore
}

/** Tokens that have copies: of each head, entry e < count is the one at positionOf(e). */
interface Copies {
  readonly store: PlaneStore
  readonly recent: RecentRows
  readonly positionOf: (entry: number) => number
  readonly count: number
}

export class ResidualStore implements RowStore {
  /** Which rows have copies is a matter of all of them. */
  readonly isDivisible = false
  readonly #options: ResidualOptions
  readonly #main: PlaneStore
  /** R entries, token p in entry p mod R. Made with the first token. */
  #ring: PlaneStore | undefined
  readonly #ringRows: RecentRows
  /** The last chunk, until it is settled. */
  #chunk: { readonly store: PlaneStore; readonly recent: RecentRows; readonly first: number } | undefined
  #seen = 0
  /** The place of a single token in the ring. */
  readonly #single: RowList
  readonly targets: RowStore['targets']

  constructor(options: ResidualOptions, main: PlaneStore) {
    this.#options = options
    this.#main = main
    this.#ringRows = new RecentRows(options.numKvHeads, options.residual)
    this.#single = appendedRows(new Int32Array(options.numKvHeads), 1)
    if (main.targets) this.targets = (input, turn) => main.targets?.(input, turn) as RowTarget[]
  }

  get capacity(): number {
    return this.#main.capacity
  }

  get bytes(): number {
    return this.#main.bytes + (this.#ring?.bytes ?? 0) + (this.#chunk?.store.bytes ?? 0)
  }

  /** `[K]`: entries of the ring in use, after so many tokens. */
  #ringLengths(seen = this.#seen): Int32Array {
    return new Int32Array(this.#options.numKvHeads).fill(Math.min(seen, this.#options.residual))
  }

  /** What has copies; the ring first, where it is not yet what the chunk will make it. */
  #copies(): Copies[] {
    const { residual } = this.#options
    const before = this.#chunk?.first ?? this.#seen
    const copies: Copies[] = []
    if (this.#ring) {
      const positionOf = (entry: number) => before - 1 - ((((before - 1 - entry) % residual) + residual) % residual)
      copies.push({ store: this.#ring, recent: this.#ringRows, positionOf, count: Math.min(before, residual) })
    }
    if (this.#chunk) {
      const { store, recent, first } = this.#chunk
      copies.push({ store, recent, positionOf: (entry) => first + entry, count: recent.size })
    }
    return copies
  }

  reserve(lengths: Int32Array, writes: Writes): void {
    const room = new Room() // pages of both stores may come from the same bytes
    this.roomFor(lengths, writes, room)
    room.check()
    this.#ring?.reserve(...this.#ringNeeds(writes))
    this.#main.reserve(lengths, writes)
  }

  roomFor(lengths: Int32Array, writes: Writes, room: Room): void {
    if (writes.count > 0) this.#ring ??= this.#options.createRing()
    this.#ring?.roomFor(...this.#ringNeeds(writes), room)
    this.#main.roomFor(lengths, writes, room)
  }

  #ringNeeds({ count, rows }: Writes): [Int32Array, Writes] {
    const [seen, { residual }] = [this.#seen + count, this.#options]
    const which = rows === 'last' && seen > residual ? 'any' : rows
    return [this.#ringLengths(seen), { count: Math.min(residual, count), rows: which }]
  }

  release(lengths: Int32Array): void {
    this.#main.release(lengths)
    for (const { recent } of this.#copies()) recent.release(lengths)
  }

  write(input: NewRows, rows: RowList, turn?: Rotation): void {
    this.#main.write(input, rows, turn)
    this.written(input, rows, turn)
  }

  written(input: NewRows, rows: RowList, turn?: Rotation): void {
    this.settle()
    const { numTokens } = input
    const { numKvHeads, residual } = this.#options
    this.#ringRows.overwrite(rows)
    const first = this.#seen
    if (numTokens === 1) {
      const entry = first % residual
      this.#ringRows.place(rows, 0, 1, () => entry)
      this.#single.slots.fill(entry)
      this.#ring?.write(input, this.#single, turn)
    } else {
      const store = new ContiguousStore({ ...residualTypes(this.#options), capacity: numTokens })
      const recent = new RecentRows(numKvHeads, numTokens)
      recent.place(rows, 0, numTokens, (t) => t)
      store.write(input, appendedRows(new Int32Array(numKvHeads), numTokens), turn)
      this.#chunk = { store, recent, first }
    }
    this.#seen += numTokens
  }

  /** The last R tokens of the chunk go into the ring. */
  settle(): void {
    const chunk = this.#chunk
    if (!chunk) return
    const { residual, numKvHeads } = this.#options
    const { size, rows } = chunk.recent
    for (let k = 0; k < numKvHeads; k++) {
      for (let t = Math.max(0, size - residual); t < size; t++) {
        const entry = (chunk.first + t) % residual
        this.#ring?.take(chunk.store, k, t, entry)
        this.#ringRows.rows[k * residual + entry] = rows[k * size + t] as number
      }
    }
    this.#ringRows.sight.forget()
    chunk.store.free()
    this.#chunk = undefined
  }

  rewind(seen: number): void {
    this.settle()
    this.#seen = seen
  }

  turn(rows: TurnedRows): void {
    this.#main.turn(rows)
    for (const { store, recent } of this.#copies()) store.turn(recent.turned(rows, this.capacity))
  }

  move(head: number, from: Int32Array, to: Int32Array): void {
    this.#main.move(head, from, to)
    for (const { recent } of this.#copies()) recent.move(head, from, to)
  }

  read(which: 'keys' | 'values', head: number, rows: Int32Array): Float32Array {
    const all = this.#main.read(which, head, rows)
    const dim = rows.length > 0 ? all.length / rows.length : 0
    const places = new Map<number, number>()
    for (const [n, row] of rows.entries()) places.set(row, n)
    for (const { store, recent, positionOf } of this.#copies()) {
      recent.each((k, entry, row) => {
        const n = places.get(row)
        if (k !== head || n === undefined || positionOf(entry) + this.#options.residual < this.#seen) return
        all.set(store.read(which, head, Int32Array.of(entry)), n * dim)
      })
    }
    return all
  }

  segments(lengths: Int32Array, facts: RowFacts): KeyValueSegment[] {
    // Nothing is said of lifetimes where one query sees all rows.
    const isStep = this.#ring !== undefined && !this.#chunk && !facts.births && !facts.deaths && !facts.rows
    return isStep ? this.#segmentsOfStep(lengths, facts) : this.#segmentsOfChunk(lengths, facts)
  }

  #segmentsOfStep(lengths: Int32Array, facts: RowFacts): KeyValueSegment[] {
    const { rows, copies } = this.#ringRows.sight.of(facts, this.capacity)
    return [this.#main.segments(lengths, rows)[0], (this.#ring as PlaneStore).segments(this.#ringLengths(), copies)[0]]
  }

  #segmentsOfChunk(lengths: Int32Array, facts: RowFacts): KeyValueSegment[] {
    const copies = this.#copies()
    const births = facts.births?.slice() ?? new Int32Array(lengths.length * this.capacity).fill(-NEVER)
    // When a query no longer sees the copy of a token, on the axis of births: then its row is born.
    const { residual } = this.#options
    const listed = facts.rows && flagsOf(facts.rows, lengths, this.capacity)
    const others = copies.map(({ store, recent, positionOf, count }) => {
      const leaves = (entry: number) => positionOf(entry) + residual - facts.origin
      recent.delay(births, this.capacity, leaves)
      const own = recent.facts(facts, this.capacity, leaves, listed)
      return store.segments(new Int32Array(lengths.length).fill(count), own)[0]
    })
    return [this.#main.segments(lengths, { ...facts, births })[0], ...others]
  }

  collect(parts: readonly Float32Array[], into: Float32Array): void {
    for (const [n, { recent }] of this.#copies().entries()) {
      recent.each((k, entry, row) => {
        const at = k * this.capacity + row
        into[at] = (into[at] as number) + (parts[n]?.[k * recent.size + entry] as number)
      })
    }
  }

  visitRows(visitor: StateVisitor, lengths: Int32Array): void {
    this.settle()
    visitor.fixed('residual', this.#options.residual)
    this.#main.visitRows(visitor, lengths)
    this.#seen = visitor.integer('tokens of the store', this.#seen, 0)
    if (this.#seen === 0) return
    if (visitor.isReading) this.#ring ??= this.#options.createRing()
    this.#ring?.visitRows(visitor, this.#ringLengths())
    visitor.integers('residual rows', this.#ringRows.rows, -1)
    if (visitor.isReading) this.#ringRows.sight.forget()
    this.#ringRows.each((k, _, row) => {
      if (row >= (lengths[k] as number)) throw invalidState(`expected a copy of one of ${lengths[k]} rows, got ${row}`)
    })
  }

  fork(lengths: Int32Array): ResidualStore {
    this.settle()
    const copy = new ResidualStore(this.#options, this.#main.fork(lengths))
    copy.#ring = this.#ring?.fork(this.#ringLengths())
    copy.#ringRows.copyFrom(this.#ringRows)
    copy.#seen = this.#seen
    return copy
  }

  checkIntegrity(): void {
    this.#main.checkIntegrity()
    this.#ring?.checkIntegrity()
  }

  free(): void {
    this.#main.free()
    this.#ring?.free()
    this.#chunk?.store.free()
  }
}
