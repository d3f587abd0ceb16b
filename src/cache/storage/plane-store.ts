/** Rows in planes: all that stores do alike, however they find the place of a row. */
import type { Kernels, KeyValueSegment, Rotation, RowTarget } from '../../kernels/index.ts'
import type { Room } from '../room.ts'
import type { StateVisitor } from '../snapshot/state.ts'
import { copyRows, type Plane, planeList, type RowPlanes } from './plane.ts'
import type { NewRows, RowFacts, RowList, RowStore, TurnedRows, Writes } from './row-store.ts'
import { bytesOfRow, type RowShape, type RowTypes } from './row-types.ts'

export interface StoreOptions extends RowShape, RowTypes {
  readonly kernels: Kernels
  readonly numKvHeads: number
}

/** `pages` is `[K, stride]`. */
export interface PageTable {
  readonly pages: Int32Array
  readonly pageSize: number
  readonly stride: number
}

export abstract class PlaneStore implements RowStore {
  readonly isDivisible = true
  protected readonly options: StoreOptions

  constructor(options: StoreOptions) {
    this.options = options
  }

  readonly targets: RowStore['targets']
  abstract get capacity(): number
  abstract get bytes(): number
  protected abstract get planes(): RowPlanes
  /** The number of a row among all of the planes. */
  protected abstract flat(head: number, row: number): number
  /** Rows in the planes. */
  protected abstract get numFlat(): number
  /** How kernels find the rows that they write: with `targetRows` of each head, or of all heads together. */
  protected abstract readonly layout: 'head-major' | 'shared'
  protected abstract get targetRows(): number
  /** Makes rows this store's alone and says where they lie in that layout, `[K, stride]`. */
  protected abstract ready(rows: RowList): Int32Array
  abstract reserve(lengths: Int32Array, writes: Writes): void
  roomFor(_lengths: Int32Array, _writes: Writes, _room: Room): void {}
  abstract release(lengths: Int32Array): void
  /** Makes a row this store's alone. */
  protected abstract own(head: number, row: number): void
  /** Through which heads find their rows; absent: each has its own side by side. */
  protected abstract readonly table: PageTable | undefined
  abstract fork(lengths: Int32Array): PlaneStore
  abstract free(): void
  checkIntegrity(): void {}
  settle(): void {}
  rewind(): void {}
  collect(): void {}

  write(input: NewRows, rows: RowList, turn?: Rotation): void {
    const { kernels, numKvHeads } = this.options
    const { numTokens } = input
    const { counts, tokens, stride } = rows
    const slots = this.ready(rows)
    kernels.store({ targets: this.places(input, turn), numTokens, numKvHeads, counts, tokens, slots, stride })
  }

  /** Of keys, values and keys as they came, in this order. */
  protected places({ key, value }: NewRows, turn?: Rotation): RowTarget[] {
    const { keys, values, originals } = this.planes
    const targets = [this.#place(keys, key, turn), this.#place(values, value)]
    if (originals) targets.push(this.#place(originals, key))
    return targets
  }

  #place({ array, format }: Plane, source: Float32Array, rotation?: Rotation): RowTarget {
    const { layout, targetRows } = this
    const { dim, storage, hadamard } = format
    return { source, target: array, storage, layout, rotation, hadamard, headDim: dim, capacity: targetRows }
  }

  turn({ heads, rows, turns, rotation, numTokens }: TurnedRows): void {
    const count = rows.length
    if (count === 0) return
    for (let n = 0; n < count; n++) this.own(heads[n] as number, rows[n] as number)
    const flat = new Int32Array(count)
    for (let n = 0; n < count; n++) flat[n] = this.flat(heads[n] as number, rows[n] as number)
    const { keys, originals } = this.planes
    const { dim: headDim, storage, hadamard } = keys.format
    this.options.kernels.turn({
      ...{ source: (originals as Plane).array, target: keys.array, storage, hadamard, headDim },
      ...{ capacity: this.numFlat, count, rows: flat, turns, rotation, numTokens },
    })
  }

  visitRows(visitor: StateVisitor, lengths: Int32Array, from = 0): void {
    visitor.expect('rows', lengths.reduce((sum, length) => sum + length - from, 0) * bytesOfRow(this.options))
    if (visitor.isReading) this.reserve(lengths, { count: 0, rows: 'last' })
    for (const plane of planeList(this.planes)) {
      for (let k = 0; k < lengths.length; k++) this.#visitHead(visitor, plane, k, { from, to: lengths[k] as number })
    }
  }

  /** Rows that lie side by side go in one piece. */
  #visitHead(visitor: StateVisitor, plane: Plane, head: number, { from, to }: { from: number; to: number }): void {
    for (let row = from; row < to; ) {
      const first = this.flat(head, row)
      let count = 1
      while (row + count < to && this.flat(head, row + count) === first + count) count++
      visitor.bytes(plane.rows(first, count))
      row += count
    }
  }

  move(head: number, from: Int32Array, to: Int32Array): void {
    for (const row of to) this.own(head, row)
    const { planes } = this
    for (let n = 0; n < from.length; n++) {
      copyRows(planes, this.flat(head, from[n] as number), planes, this.flat(head, to[n] as number), 1)
    }
  }

  /** Takes a row of a store of the same types over. */
  take(source: PlaneStore, head: number, from: number, to: number): void {
    this.own(head, to)
    copyRows(source.planes, source.flat(head, from), this.planes, this.flat(head, to), 1)
  }

  read(which: 'keys' | 'values', head: number, rows: Int32Array): Float32Array {
    return this.planes[which].read(rows.map((row) => this.flat(head, row)))
  }

  segments(lengths: Int32Array, facts: RowFacts): [KeyValueSegment] {
    const { keys, values } = this.planes
    const { capacity, table } = this
    const { bias, births, deaths, positions, firstPosition, rows } = facts
    // Field by field: spreading objects takes longer than all else here.
    const segment: KeyValueSegment = {
      keys: keys.array,
      values: values.array,
      keyStorage: keys.format.storage,
      valueStorage: values.format.storage,
      layout: table ? 'shared' : 'head-major',
      capacity,
      lengths,
      bias,
      births,
      deaths,
      firstPosition,
      positions,
      rows,
      pages: table?.pages,
      pageSize: table?.pageSize,
      pagesStride: table?.stride,
    }
    return [segment]
  }
}
