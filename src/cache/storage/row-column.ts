/** One f32 a row, `[K, C]`, where kernels can read it: biases, masses, scores. */
import type { Kernels, Memory } from '../../kernels/index.ts'
import type { StateVisitor } from '../snapshot/state.ts'

export class RowColumn {
  readonly #kernels: Kernels
  readonly #numKvHeads: number
  #capacity: number
  #memory: Memory

  constructor(kernels: Kernels, numKvHeads: number, capacity: number) {
    this.#kernels = kernels
    this.#numKvHeads = numKvHeads
    this.#capacity = capacity
    this.#memory = kernels.alloc(4 * numKvHeads * capacity)
  }

  get values(): Float32Array {
    return this.#memory.f32
  }

  get bytes(): number {
    return this.#memory.byteLength
  }

  /** Room for `capacity` rows a head, of which the first lengths[k] are kept. */
  resize(capacity: number, lengths: Int32Array): void {
    if (capacity === this.#capacity) return
    const memory = this.#kernels.alloc(4 * this.#numKvHeads * capacity)
    copyRows(this.values, this.#capacity, memory.f32, capacity, lengths)
    this.#memory.free()
    this.#memory = memory
    this.#capacity = capacity
  }

  copyFrom(other: RowColumn, lengths: Int32Array): void {
    copyRows(other.values, other.#capacity, this.values, this.#capacity, lengths)
  }

  /** The first lengths[k] rows of each head. */
  visitState(visitor: StateVisitor, lengths: Int32Array, from = 0): void {
    for (const [k, length] of lengths.entries()) {
      visitor.numbers(this.values.subarray(k * this.#capacity + from, k * this.#capacity + length))
    }
  }

  /** Rows from `from` on to lengths[k], `[K, rows]`. */
  slice(lengths: Int32Array, from: number): Float32Array {
    const count = (lengths[0] ?? from) - from
    const rows = new Float32Array(lengths.length * count)
    copyRows(
      this.values.subarray(from),
      this.#capacity,
      rows,
      count,
      lengths.map((length) => length - from),
    )
    return rows
  }

  /** Writes rows `[K, rows]` after the first lengths[k]. */
  fill(rows: Float32Array, lengths: Int32Array): void {
    const count = rows.length / lengths.length
    for (const [k, length] of lengths.entries()) {
      this.values.set(rows.subarray(k * count, (k + 1) * count), k * this.#capacity + length)
    }
  }

  move(head: number, from: number, to: number): void {
    const base = head * this.#capacity
    this.values[base + to] = this.values[base + from] as number
  }

  free(): void {
    this.#memory.free()
  }
}

function copyRows(
  from: Float32Array,
  fromCapacity: number,
  to: Float32Array,
  toCapacity: number,
  lengths: Int32Array,
): void {
  for (const [k, length] of lengths.entries()) {
    to.set(from.subarray(k * fromCapacity, k * fromCapacity + length), k * toCapacity)
  }
}
