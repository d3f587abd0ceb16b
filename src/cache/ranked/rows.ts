/**
 * The rows of a layer whose heads are ranked anew from time to time: which token is where, in which order, with what
 * score and mass. Rows of a head are numbered without gaps; evicting moves the last ones into the holes.
 */
import type { Kernels } from '../../kernels/index.ts'
import { checkPermutation, type StateVisitor } from '../snapshot/state.ts'
import { RowColumn } from '../storage/row-column.ts'

export class RankedRows {
  readonly lengths: Int32Array
  /** Absent for models without importance. */
  readonly bias: RowColumn | undefined
  /** Attention of all queries so far; absent where nobody asks. */
  readonly mass: RowColumn | undefined
  readonly #kernels: Kernels
  readonly #numKvHeads: number
  #capacity: number
  /** `[K, C]` */
  #positions: Float64Array
  /** `[K, C]`; NaN: not ranked yet */
  #scores: Float64Array
  /** `[K, C]`: rows of each head from the oldest to the newest. */
  #order: Int32Array

  constructor(kernels: Kernels, numKvHeads: number, capacity: number, columns: { bias: boolean; mass: boolean }) {
    this.#kernels = kernels
    this.#numKvHeads = numKvHeads
    this.#capacity = capacity
    this.lengths = new Int32Array(numKvHeads)
    this.bias = columns.bias ? new RowColumn(kernels, numKvHeads, capacity) : undefined
    this.mass = columns.mass ? new RowColumn(kernels, numKvHeads, capacity) : undefined
    this.#positions = new Float64Array(numKvHeads * capacity)
    this.#scores = new Float64Array(numKvHeads * capacity)
    this.#order = new Int32Array(numKvHeads * capacity)
  }

  /** Of biases in use. */
  get bytes(): number {
    return this.bias ? 4 * this.lengths.reduce((a, b) => a + b, 0) : 0
  }

  order(head: number): Int32Array {
    const base = head * this.#capacity
    return this.#order.subarray(base, base + (this.lengths[head] as number))
  }

  position(head: number, row: number): number {
    return this.#positions[head * this.#capacity + row] as number
  }

  score(head: number, row: number): number {
    return this.#scores[head * this.#capacity + row] as number
  }

  /** By order. */
  positionsOf(head: number): Float64Array {
    return this.#ordered(head, this.#positions)
  }

  /** By order. */
  scoresOf(head: number): Float64Array {
    return this.#ordered(head, this.#scores)
  }

  /** Plain loops: policies that rank at every step run them over all rows. */
  #ordered(head: number, values: Float64Array): Float64Array {
    const order = this.order(head)
    const base = head * this.#capacity
    const ordered = new Float64Array(order.length)
    for (let n = 0; n < ordered.length; n++) ordered[n] = values[base + (order[n] as number)] as number
    return ordered
  }

  setScores(head: number, scores: Float64Array): void {
    const order = this.order(head)
    const base = head * this.#capacity
    for (let n = 0; n < scores.length; n++) this.#scores[base + (order[n] as number)] = scores[n] as number
  }

  /** A new token in the next row of a head. */
  add(head: number, position: number, score: number, bias: number): void {
    const row = this.lengths[head] as number
    const at = head * this.#capacity + row
    this.#positions[at] = position
    this.#scores[at] = score
    if (this.bias) this.bias.values[at] = bias
    if (this.mass) this.mass.values[at] = 0
    this.#order[at] = row
    this.lengths[head] = row + 1
  }

  /**
   * Keeps the rows of a head whose flag is set, by order, and closes the holes.
   * @param move called with the rows that go elsewhere, and where to
   */
  keep(head: number, flags: Uint8Array, move: (from: Int32Array, to: Int32Array) => void): void {
    const order = this.order(head)
    const isKept = new Uint8Array(order.length)
    let length = 0
    for (let n = 0; n < order.length; n++) {
      if (!flags[n]) continue
      isKept[order[n] as number] = 1
      order[length++] = order[n] as number
    }
    const { from, to, places } = movesInto(isKept, length)
    for (let n = 0; n < from.length; n++) this.#move(head, from[n] as number, to[n] as number)
    for (let n = 0; from.length > 0 && n < length; n++) {
      const row = order[n] as number
      if (row >= length) order[n] = places[row - length] as number
    }
    this.lengths[head] = length
    if (from.length > 0) move(from, to)
  }

  #move(head: number, from: number, to: number): void {
    const base = head * this.#capacity
    this.#positions[base + to] = this.#positions[base + from] as number
    this.#scores[base + to] = this.#scores[base + from] as number
    this.bias?.move(head, from, to)
    this.mass?.move(head, from, to)
  }

  resize(capacity: number): void {
    if (capacity === this.#capacity) return
    this.bias?.resize(capacity, this.lengths)
    this.mass?.resize(capacity, this.lengths)
    const [positions, scores, order] = [this.#positions, this.#scores, this.#order]
    this.#positions = new Float64Array(this.#numKvHeads * capacity)
    this.#scores = new Float64Array(this.#numKvHeads * capacity)
    this.#order = new Int32Array(this.#numKvHeads * capacity)
    for (const [k, length] of this.lengths.entries()) {
      const start = k * this.#capacity
      this.#positions.set(positions.subarray(start, start + length), k * capacity)
      this.#scores.set(scores.subarray(start, start + length), k * capacity)
      this.#order.set(order.subarray(start, start + length), k * capacity)
    }
    this.#capacity = capacity
  }

  /** For `lengths`, which there is room for, of rows below position `seen`. */
  visitState(visitor: StateVisitor, lengths: Int32Array, seen: number): void {
    this.lengths.set(lengths)
    this.bias?.visitState(visitor, lengths)
    this.mass?.visitState(visitor, lengths)
    for (const [k, length] of lengths.entries()) {
      const start = k * this.#capacity
      visitor.integers('positions', this.#positions.subarray(start, start + length), 0, seen - 1)
      visitor.numbers(this.#scores.subarray(start, start + length))
      const order = this.order(k)
      visitor.integers('the order of rows', order, 0, length - 1)
      if (visitor.isReading) checkPermutation('the order of rows', order)
    }
  }

  clear(): void {
    this.lengths.fill(0)
  }

  fork(capacity: number): RankedRows {
    const columns = { bias: this.bias !== undefined, mass: this.mass !== undefined }
    const copy = new RankedRows(this.#kernels, this.#numKvHeads, this.#capacity, columns)
    copy.lengths.set(this.lengths)
    if (this.bias) copy.bias?.copyFrom(this.bias, this.lengths)
    if (this.mass) copy.mass?.copyFrom(this.mass, this.lengths)
    copy.#positions.set(this.#positions)
    copy.#scores.set(this.#scores)
    copy.#order.set(this.#order)
    copy.resize(capacity)
    return copy
  }

  free(): void {
    this.bias?.free()
    this.mass?.free()
  }
}

/** Rows past the first `length` that stay go into the holes among these; places[n] is where row length + n goes. */
function movesInto(isKept: Uint8Array, length: number): { from: Int32Array; to: Int32Array; places: Int32Array } {
  const places = new Int32Array(isKept.length - length)
  const [from, to] = [new Int32Array(places.length), new Int32Array(places.length)]
  let [count, hole] = [0, 0]
  for (let row = length; row < isKept.length; row++) {
    if (!isKept[row]) continue
    while (isKept[hole]) hole++
    places[row - length] = hole
    from[count] = row
    to[count++] = hole++
  }
  return { from: from.subarray(0, count), to: to.subarray(0, count), places }
}
