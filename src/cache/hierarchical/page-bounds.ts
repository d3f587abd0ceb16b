/**
 * What is remembered of pages while their rows are elsewhere: for each KV head the least and greatest number of each
 * channel of its keys, which bounds what any of its keys can score for a query. Tang et al., "Quest: Query-Aware
 * Sparsity for Efficient Long-Context LLM Inference" (2024), section 3.3.
 *
 * A bound is sum_d max(q_d least_d, q_d greatest_d), which the kernels find for all pages, and of them the highest.
 */
import { type Kernels, type Memory, rowBytes } from '../../kernels/index.ts'
import type { LayerShape } from '../contract.ts'
import type { StateVisitor } from '../snapshot/state.ts'
import { Plane } from '../storage/plane.ts'

const largestHalf = 65504
/** What bounds are rounded to, each page and head with a scale of its own: a quarter of f32, and nearly as good to rank by. */
const storage = 'int8'

/** Bytes of one page of a KV head. */
export function bytesOfBound(headDim: number): number {
  return rowBytes(2 * headDim, storage) + 4
}

/** Slots of pages, `[K, N]`, of which the first lengths[k] of a head count, ascending. */
export interface HighestSlots {
  readonly rows: Int32Array
  readonly lengths: Int32Array
}

/** Pages in slots of a ring: one that leaves gives its slot to one that comes. */
export class PageBounds {
  readonly #kernels: Kernels
  readonly #shape: LayerShape
  readonly #maxPages: number
  /** `[K, C]` rows of 2 D: the greatest, then the least numbers. */
  #bounds: Plane
  /** `[K, C]`: added to the bounds; -Infinity: there is nothing to come back. */
  #bias: Memory
  #capacity: number
  /** Slots in use: those from 0 on. */
  #used = 0
  /** `[K, 2 D]` of a page on its way in, and the row that it takes. */
  readonly #page: Float32Array
  readonly #row: { readonly counts: Int32Array; readonly tokens: Int32Array; readonly slots: Int32Array }

  constructor(kernels: Kernels, shape: LayerShape, maxPages: number) {
    const { numKvHeads: K, headDim } = shape
    this.#kernels = kernels
    this.#shape = shape
    this.#maxPages = maxPages
    this.#capacity = Math.min(16, maxPages)
    this.#bounds = this.#createPlane(this.#capacity)
    this.#bias = kernels.alloc(this.#capacity * K * 4)
    this.clear()
    this.#page = new Float32Array(K * 2 * headDim)
    this.#row = { counts: new Int32Array(K).fill(1), tokens: new Int32Array(K), slots: new Int32Array(K) }
  }

  #createPlane(capacity: number): Plane {
    const { numKvHeads, headDim } = this.#shape
    return new Plane(this.#kernels, { dim: 2 * headDim, storage, hadamard: false }, numKvHeads * capacity)
  }

  get bytes(): number {
    return this.#bounds.bytes + this.#bias.byteLength
  }

  /** C */
  get capacity(): number {
    return this.#capacity
  }

  /** Makes room for so many pages, of which those that are there have numbers from `first` on. */
  reserve(count: number, first: number): void {
    if (count <= this.#capacity) return
    let capacity = this.#capacity
    while (capacity < count) capacity *= 2
    capacity = Math.min(capacity, this.#maxPages)
    const K = this.#shape.numKvHeads
    const [bounds, bias] = [this.#createPlane(capacity), this.#kernels.alloc(capacity * K * 4)]
    bias.f32.fill(Number.NEGATIVE_INFINITY)
    for (let k = 0; k < K; k++) {
      for (let number = first; number < first + this.#capacity; number++) {
        const [from, to] = [k * this.#capacity + (number % this.#capacity), k * capacity + (number % capacity)]
        bounds.copy(this.#bounds, from, to, 1)
        bias.f32[to] = this.#bias.f32[from] as number
      }
    }
    this.dispose()
    this.#bounds = bounds
    this.#bias = bias
    for (let number = first; number < first + this.#capacity; number++) {
      this.#used = Math.max(this.#used, (number % capacity) + 1)
    }
    this.#capacity = capacity
  }

  /** @param keysOf `[P, D]` of a page of a head, as attention reads them */
  set(number: number, keysOf: (head: number) => Float32Array): void {
    const { numKvHeads: K, headDim: D } = this.#shape
    const slot = this.#use(number)
    for (let k = 0; k < K; k++) findBounds(keysOf(k), this.#page.subarray(k * 2 * D, (k + 1) * 2 * D))
    this.#row.slots.fill(slot)
    const target = { target: this.#bounds.array, storage, headDim: 2 * D, capacity: this.#capacity } as const
    const targets = [{ source: this.#page, ...target }]
    this.#kernels.store({ targets, numTokens: 1, numKvHeads: K, ...this.#row, stride: 1 })
  }

  /** The slot of a page. */
  #use(number: number): number {
    const slot = number % this.#capacity
    this.#used = Math.max(this.#used, slot + 1)
    return slot
  }

  /** @param bias the most that is added to the logits of any of its tokens that may come back; -Infinity: there is none */
  setBias(number: number, head: number, bias: number): void {
    this.#bias.f32[head * this.#capacity + (number % this.#capacity)] = bias
  }

  /**
   * Finds the pages of which any row may score most for any of the G queries of a head; of equal ones those in later slots.
   * @param query `[H, D]`, rotated
   * @param into N rows a head
   */
  findHighest(query: Float32Array, { rows, lengths }: HighestSlots): void {
    const { numHeads, numKvHeads, headDim, scale = 1 / Math.sqrt(headDim) } = this.#shape
    this.#kernels.seek({
      ...{ query, bounds: this.#bounds.array, storage, bias: this.#bias.f32 },
      ...{ numHeads, numKvHeads, headDim, scale, capacity: this.#capacity, numRows: this.#used },
      ...{ most: rows.length / numKvHeads, rows, lengths },
    })
  }

  /** A scale that is no number makes a page that never comes back. */
  visitPage(visitor: StateVisitor, number: number, head: number): void {
    visitor.bytes(this.#bounds.rows(head * this.#capacity + this.#use(number), 1))
  }

  clear(): void {
    this.#used = 0
    this.#bias.f32.fill(Number.NEGATIVE_INFINITY)
  }

  /** For as many pages. */
  copyFrom(other: PageBounds): void {
    this.reserve(other.#capacity, 0)
    this.#bounds.copy(other.#bounds, 0, 0, this.#shape.numKvHeads * this.#capacity)
    this.#bias.f32.set(other.#bias.f32)
    this.#used = other.#used
  }

  dispose(): void {
    this.#bounds.free()
    this.#bias.free()
  }
}

/** Of keys `[P, D]`, the greatest of each channel and then the least. */
function findBounds(keys: Float32Array, into: Float32Array): void {
  const D = into.length / 2
  into.fill(-largestHalf, 0, D).fill(largestHalf, D)
  for (let row = 0; row < keys.length; row += D) {
    for (let d = 0; d < D; d++) {
      const value = keys[row + d] as number
      if (value > (into[d] as number)) into[d] = value
      if (value < (into[D + d] as number)) into[D + d] = value
    }
  }
  for (let d = 0; d < D; d++) {
    into[d] = Math.min(into[d] as number, largestHalf)
    into[D + d] = Math.max(into[D + d] as number, -largestHalf)
  }
}
