/**
 * Where the rows of K and V of one layer of one sequence lie. A cache numbers the rows of each KV head from 0 on without
 * gaps; a store knows the memory behind each number. Everything that knows how a row is stored is here and below:
 * caches and policies see f32.
 */
import type {
  Kernels,
  KeyValueSegment,
  Rotation,
  FloatArray as StorageArray,
  FloatType as StorageType,
} from '../kernels/index.ts'
import { decodeRows } from './decode-rows.ts'
import type { StateVisitor } from './snapshot/state.ts'

export const bytesOf = { f32: 4, f16: 2, bf16: 2 } as const satisfies Record<StorageType, number>

export interface RowShape {
  /** D */
  readonly headDim: number
  /** E */
  readonly valueDim: number
  /** Keys are stored unrotated beside the rotated ones that attention reads. */
  readonly hasOriginals?: boolean
}

/** Bytes of one row of one KV head. */
export function rowBytes({ headDim, valueDim, hasOriginals }: RowShape, kvDtype: StorageType): number {
  return (headDim * (hasOriginals ? 2 : 1) + valueDim) * bytesOf[kvDtype]
}

/** All rows, one after the other. */
export interface RowPlanes {
  /** `[rows, D]` */
  readonly keys: StorageArray
  /** `[rows, E]` */
  readonly values: StorageArray
  /** `[rows, D]` */
  readonly originals: StorageArray | undefined
}

/** Which source token goes to which row, for each KV head: counts[k] pairs (tokens[k, n], slots[k, n]). */
export interface RowList {
  /** `[K]` */
  readonly counts: Int32Array
  /** `[K, stride]` */
  readonly tokens: Int32Array
  /** `[K, stride]` */
  readonly slots: Int32Array
  readonly stride: number
}

export interface StoreOptions extends RowShape {
  readonly kernels: Kernels
  readonly kvDtype: StorageType
  readonly numKvHeads: number
}

/** New tokens: `key [T, K, D]`, `value [T, K, E]`. */
export interface NewRows {
  readonly key: Float32Array
  readonly value: Float32Array
  readonly numTokens: number
}

/** The rows of one layer. */
export abstract class RowStore {
  protected readonly options: StoreOptions
  #flat = new Int32Array(0)

  constructor(options: StoreOptions) {
    this.options = options
  }

  /** C: rows that each head can have without `reserve` having to change it. */
  abstract get capacity(): number
  /** Bytes of the rows that this store holds, shared ones included. */
  abstract get bytes(): number
  protected abstract get planes(): RowPlanes
  /** The number of a row among all of the planes. */
  protected abstract flat(head: number, row: number): number
  /** Rows in the planes. */
  protected abstract get numFlat(): number

  /**
   * Makes rows 0 .. lengths[k] - 1 of each head exist, and `numWrites` of each head writable.
   * @throws KvasirError `out-of-memory`; nothing has changed then
   */
  abstract reserve(lengths: Int32Array, numWrites: number): void
  /** Rows past lengths[k] are no longer needed. */
  abstract release(lengths: Int32Array): void
  /** Makes a row this store's alone. */
  protected abstract own(head: number, row: number): void
  /** How the kernels find rows 0 .. lengths[k] - 1. */
  abstract segment(lengths: Int32Array): KeyValueSegment
  /** Another store with the same rows. */
  abstract fork(lengths: Int32Array): RowStore
  abstract free(): void
  checkIntegrity(): void {}

  /** Writes new tokens to rows; with `turn`, keys are rotated on the way in and kept as they came besides. */
  write({ key, value, numTokens }: NewRows, rows: RowList, turn?: Rotation): void {
    const { kernels, numKvHeads, headDim, valueDim, kvDtype } = this.options
    const { counts, slots, stride } = rows
    for (let k = 0; k < numKvHeads; k++) {
      for (let n = k * stride; n < k * stride + (counts[k] as number); n++) this.own(k, slots[n] as number)
    }
    const flat = this.#flatSlots(rows)
    const list = { counts, tokens: rows.tokens, slots: flat, stride, storage: kvDtype }
    const common = { ...list, numTokens, numKvHeads, layout: 'shared' as const, capacity: this.numFlat }
    // Views are taken for each call: one call may grow the memory that the next one's lie in.
    kernels.store({ ...common, source: key, target: this.planes.keys, headDim, rotation: turn })
    kernels.store({ ...common, source: value, target: this.planes.values, headDim: valueDim })
    const { originals } = this.planes
    if (originals) kernels.store({ ...common, source: key, target: originals, headDim })
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

  /** Rotates rows anew from the keys as they came: entry n is row rows[n] of head heads[n], turned by rotation n. */
  turn(heads: ArrayLike<number>, rows: ArrayLike<number>, turned: Rotation): void {
    const { kernels, headDim, kvDtype } = this.options
    const count = rows.length
    const source = new Float32Array(count * headDim)
    for (let n = 0; n < count; n++) this.own(heads[n] as number, rows[n] as number)
    const { keys, originals } = this.planes
    const slots = Int32Array.from({ length: count }, (_, n) => this.flat(heads[n] as number, rows[n] as number))
    decodeRows(originals as StorageArray, kvDtype, slots, source)
    kernels.store({
      ...{ source, target: keys, storage: kvDtype, layout: 'shared', numTokens: count, numKvHeads: 1, headDim },
      ...{ capacity: this.numFlat, counts: Int32Array.of(count), tokens: Int32Array.from(slots, (_, n) => n), slots },
      ...{ stride: count, rotation: turned },
    })
  }

  /** Rows 0 .. lengths[k] - 1 of each head as opaque bytes, one plane after the other; reading makes them exist. */
  visitRows(visitor: StateVisitor, lengths: Int32Array): void {
    const { headDim, valueDim, kvDtype } = this.options
    const sizes = { keys: headDim, values: valueDim, originals: headDim }
    const total = lengths.reduce((sum, length) => sum + length, 0)
    visitor.expect('rows', total * rowBytes(this.options, kvDtype))
    if (visitor.isReading) this.reserve(lengths, 0)
    for (const [name, dim] of Object.entries(sizes)) {
      const plane = this.planes[name as keyof RowPlanes]
      for (let k = 0; plane && k < lengths.length; k++) this.#visitHead(visitor, plane, k, lengths[k] as number, dim)
    }
  }

  /** Rows that lie side by side go in one piece. */
  #visitHead(visitor: StateVisitor, plane: StorageArray, head: number, length: number, dim: number): void {
    for (let row = 0; row < length; ) {
      const first = this.flat(head, row)
      let count = 1
      while (row + count < length && this.flat(head, row + count) === first + count) count++
      const part = plane.subarray(first * dim, (first + count) * dim)
      visitor.bytes(new Uint8Array(part.buffer, part.byteOffset, part.byteLength))
      row += count
    }
  }

  /** Copies rows over others of the same head: from[n] over to[n]. */
  move(head: number, from: Int32Array, to: Int32Array): void {
    for (const row of to) this.own(head, row)
    const { headDim, valueDim } = this.options
    const { keys, values, originals } = this.planes
    for (let n = 0; n < from.length; n++) {
      const [source, target] = [this.flat(head, from[n] as number), this.flat(head, to[n] as number)]
      keys.copyWithin(target * headDim, source * headDim, (source + 1) * headDim)
      values.copyWithin(target * valueDim, source * valueDim, (source + 1) * valueDim)
      originals?.copyWithin(target * headDim, source * headDim, (source + 1) * headDim)
    }
  }

  /** Keys as attention sees them, or values, of some rows of a head, as f32: `[rows, D]` or `[rows, E]`. */
  read(which: 'keys' | 'values', head: number, rows: Int32Array): Float32Array {
    const { kvDtype, headDim, valueDim } = this.options
    const into = new Float32Array(rows.length * (which === 'keys' ? headDim : valueDim))
    decodeRows(
      this.planes[which],
      kvDtype,
      rows.map((row) => this.flat(head, row)),
      into,
    )
    return into
  }
}

/** Every new token, to the rows from firstRows[k] on, in order. */
export function appendedRows(firstRows: Int32Array, numTokens: number): RowList {
  const numKvHeads = firstRows.length
  const tokens = Int32Array.from({ length: numKvHeads * numTokens }, (_, i) => i % numTokens)
  return {
    counts: new Int32Array(numKvHeads).fill(numTokens),
    tokens,
    slots: tokens.map((t, i) => (firstRows[Math.floor(i / numTokens)] as number) + t),
    stride: numTokens,
  }
}
