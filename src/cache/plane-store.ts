/** Rows in planes: all that stores do alike, however they find the place of a row. */
import type { Kernels, KeyValueSegment, Rotation, StoreArgs } from '../kernels/index.ts'
import { copyRows, type Plane, planeList, type RowPlanes } from './plane.ts'
import type { NewRows, RowFacts, RowList, RowStore } from './row-store.ts'
import { bytesOfRow, type RowShape, type RowTypes } from './row-types.ts'
import type { StateVisitor } from './snapshot/state.ts'

export interface StoreOptions extends RowShape, RowTypes {
  readonly kernels: Kernels
  readonly numKvHeads: number
}

export abstract class PlaneStore implements RowStore {
  readonly isDivisible = true
  protected readonly options: StoreOptions
  #flat = new Int32Array(0)

  constructor(options: StoreOptions) {
    this.options = options
  }

  abstract get capacity(): number
  abstract get bytes(): number
  protected abstract get planes(): RowPlanes
  /** The number of a row among all of the planes. */
  protected abstract flat(head: number, row: number): number
  /** Rows in the planes. */
  protected abstract get numFlat(): number
  abstract reserve(lengths: Int32Array, numWrites: number): void
  abstract release(lengths: Int32Array): void
  /** Makes a row this store's alone. */
  protected abstract own(head: number, row: number): void
  /** Where entries lie. */
  protected abstract places(): Pick<KeyValueSegment, 'layout' | 'pages' | 'pageSize' | 'pagesStride' | 'capacity'>
  abstract fork(lengths: Int32Array): PlaneStore
  abstract free(): void
  checkIntegrity(): void {}
  settle(): void {}
  rewind(): void {}
  collect(): void {}

  write({ key, value, numTokens }: NewRows, rows: RowList, turn?: Rotation): void {
    const { numKvHeads } = this.options
    const { counts, tokens, slots, stride } = rows
    for (let k = 0; k < numKvHeads; k++) {
      for (let n = k * stride; n < k * stride + (counts[k] as number); n++) this.own(k, slots[n] as number)
    }
    const list = { counts, tokens, slots: this.#flatSlots(rows), stride, numTokens, numKvHeads }
    const { keys, values, originals } = this.planes
    this.#store(keys, { ...list, source: key, rotation: turn })
    this.#store(values, { ...list, source: value })
    if (originals) this.#store(originals, { ...list, source: key })
  }

  /** Views are taken for each call: one call may grow the memory that the next one's lie in. */
  #store({ array, format }: Plane, args: Omit<StoreArgs, 'target' | 'storage' | 'headDim' | 'capacity'>): void {
    const { dim: headDim, storage, hadamard } = format
    const place = { layout: 'shared' as const, capacity: this.numFlat }
    this.options.kernels.store({ ...args, ...place, target: array, storage, headDim, hadamard })
  }

  /** Reused from step to step, so that a step allocates nothing. */
  #flatSlots({ counts, slots, stride }: RowList): Int32Array {
    if (this.#flat.length < counts.length * stride) this.#flat = new Int32Array(counts.length * stride)
    for (let k = 0; k < counts.length; k++) {
      for (let n = k * stride; n < k * stride + (counts[k] as number); n++) {
        this.#flat[n] = this.flat(k, slots[n] as number)
      }
    }
    return this.#flat
  }

  turn(heads: ArrayLike<number>, rows: ArrayLike<number>, rotation: Rotation): void {
    const count = rows.length
    if (count === 0) return
    for (let n = 0; n < count; n++) this.own(heads[n] as number, rows[n] as number)
    const { keys, originals } = this.planes
    const slots = Int32Array.from({ length: count }, (_, n) => this.flat(heads[n] as number, rows[n] as number))
    const source = (originals as Plane).read(slots)
    const list = { counts: Int32Array.of(count), tokens: Int32Array.from(slots, (_, n) => n), slots, stride: count }
    this.#store(keys, { ...list, source, numTokens: count, numKvHeads: 1, rotation })
  }

  visitRows(visitor: StateVisitor, lengths: Int32Array, from = 0): void {
    visitor.expect('rows', lengths.reduce((sum, length) => sum + length - from, 0) * bytesOfRow(this.options))
    if (visitor.isReading) this.reserve(lengths, 0)
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

  segments(lengths: Int32Array, { origin: _, ...facts }: RowFacts): [KeyValueSegment] {
    const { keys, values } = this.planes
    const types = { keyStorage: keys.format.storage, valueStorage: values.format.storage }
    return [{ keys: keys.array, values: values.array, ...types, ...this.places(), lengths, ...facts }]
  }
}
