/**
 * The attention of the last queries before a ranking, added up query by query as they come instead of all at once: so
 * no step waits for all of them. It counts only where each query was seen by itself and no row has left since; else
 * whoever ranks computes it anew from the queries.
 */
import type { Kernels } from '../../kernels/index.ts'
import type { StateVisitor } from '../snapshot/state.ts'
import { ScratchFloats } from './scratch-floats.ts'

const nothing = -1

export class MassTally {
  readonly #size: number
  readonly #numKvHeads: number
  readonly #memory: ScratchFloats
  #capacity = 0
  /** Queries so far; `nothing`: they don't count. */
  #count = nothing

  /** @param size how many queries count */
  constructor(kernels: Kernels, numKvHeads: number, size: number) {
    this.#size = size
    this.#numKvHeads = numKvHeads
    this.#memory = new ScratchFloats(kernels)
  }

  /** `[K, C]` */
  get values(): Float32Array {
    return this.#memory.reserve(this.#numKvHeads * this.#capacity)
  }

  /**
   * A single token has come. Returns whether the attention of its query is to be added to `values`.
   * @param stepsLeft until rows are ranked if every head takes every token, this one included
   */
  counts(stepsLeft: number, capacity: number): boolean {
    if (stepsLeft === this.#size) {
      this.#capacity = capacity
      this.values.fill(0, 0, this.#numKvHeads * capacity)
      this.#count = 0
    } else if (this.#count !== this.#size - stepsLeft || capacity !== this.#capacity) {
      this.#count = nothing
    }
    if (this.#count === nothing) return false
    this.#count++
    return true
  }

  /** Whether `values` is the attention of exactly the last queries. */
  get isComplete(): boolean {
    return this.#count === this.#size
  }

  /** Rows have left, or queries came that were not seen one by one. */
  clear(): void {
    this.#count = nothing
  }

  visitState(visitor: StateVisitor, lengths: Int32Array, capacity: number): void {
    this.#count = visitor.integer('queries that were added up', this.#count, nothing, this.#size)
    if (this.#count === nothing) return
    if (visitor.isReading) this.#capacity = capacity
    for (const [k, length] of lengths.entries()) {
      const start = k * this.#capacity
      visitor.numbers(this.values.subarray(start, start + length))
    }
    if (visitor.isReading) for (let k = 0; k < lengths.length; k++) this.#clearPast(k, lengths[k] as number)
  }

  #clearPast(head: number, length: number): void {
    this.values.fill(0, head * this.#capacity + length, (head + 1) * this.#capacity)
  }

  copyFrom(other: MassTally): void {
    this.#capacity = other.#capacity
    this.#count = other.#count
    if (this.#count !== nothing) this.values.set(other.values.subarray(0, this.#numKvHeads * this.#capacity))
  }

  free(): void {
    this.#memory.free()
  }
}
