/**
 * Where keys and queries stand when the cache rotates them itself.
 *
 * `original`: the number of tokens before them. `rank`: as though what was evicted had never been, so that the distance
 * from a query to a key is the number of kept keys between them (StreamingLLM). Only differences matter to a rotation,
 * so the newest token always takes the next number and an eviction moves the older rows of its head one up; a sink
 * thus moves with every step, a key of the recent window never. When numbers get large everything moves down, so that
 * no rotation ever leaves the range of a few windows.
 */
import type { Rotation } from '../kernels/index.ts'
import { describe } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import type { LayerRotary } from './contract.ts'
import { ranksOf } from './rank-rotations.ts'
import type { StateVisitor } from './snapshot/state.ts'
import type { RowStore, TurnedRows } from './storage/row-store.ts'

export class PositionAxis {
  readonly #numKvHeads: number
  readonly #isRank: boolean
  /** Tokens that the encoding is told a sequence has: ranks stay below this. */
  readonly #span: number
  /** How many of the last tokens have a position in any case, whatever is kept: their queries are looked back at. */
  readonly #lookback: number
  #rotary: LayerRotary | null = null
  #capacity: number
  /** `[K, C]` of ranks: the number of each row. */
  #numbers: Float64Array
  /** The number of the next token. */
  #next = 0
  /** Rows whose rotation is out of date, by their place in `#numbers`, each once: the first `#numMoved` of the list. */
  #moved: Int32Array
  #isMoved: Uint8Array
  #numMoved = 0

  constructor(numKvHeads: number, capacity: number, isRank: boolean, span: number, lookback = 1) {
    this.#numKvHeads = numKvHeads
    this.#isRank = isRank
    this.#span = span
    this.#lookback = Math.max(1, lookback)
    this.#capacity = capacity
    const size = isRank ? numKvHeads * capacity : 0
    this.#numbers = new Float64Array(size)
    this.#moved = new Int32Array(size)
    this.#isMoved = new Uint8Array(size)
  }

  get isRank(): boolean {
    return this.#isRank
  }

  /** @throws KvasirError `invalid-argument` when the caller has rotated already, or says nothing of it */
  use(rotary: LayerRotary | null | undefined): void {
    if (rotary === undefined) {
      const got = describe(rotary)
      throw invalidArgument('cache', `expected unrotated queries and keys with rotary (null: none), got ${got}`)
    }
    this.#rotary = rotary
  }

  /** The rotation of the next T tokens. */
  forNext(numTokens: number): Rotation | undefined {
    return this.#rotation(Float64Array.from({ length: numTokens }, (_, t) => this.#next + t))
  }

  /** The rotation of the last T tokens. */
  forLast(numTokens: number): Rotation | undefined {
    return this.#rotation(Float64Array.from({ length: numTokens }, (_, t) => this.#next - numTokens + t))
  }

  /** Of positions one after the other. */
  #rotation(positions: Float64Array): Rotation | undefined {
    if (!this.#rotary) return undefined
    const { pairs, isInterleaved, textLength = 0 } = this.#rotary
    if (this.#isRank) {
      const { first, cos, sin } = ranksOf(this.#rotary, positions, this.#span)
      const from = ((positions[0] as number) - first) * pairs
      const part = (table: Float32Array): Float32Array => table.subarray(from, from + positions.length * pairs)
      return { cos: part(cos), sin: part(sin), rotaryPairs: pairs, isInterleaved }
    }
    const [cos, sin] = [new Float32Array(positions.length * pairs), new Float32Array(positions.length * pairs)]
    const reached = (positions.at(-1) as number) + 1
    this.#rotary.fill(positions, Math.max(reached, textLength), cos, sin)
    return { cos, sin, rotaryPairs: pairs, isInterleaved }
  }

  /** The mean of the rotations of the next `length` positions. */
  meanRotation(length: number): { cos: Float64Array; sin: Float64Array; isInterleaved: boolean } | undefined {
    const rotation = this.forNext(length)
    if (!rotation) return undefined
    const { rotaryPairs: pairs, isInterleaved = false } = rotation
    const mean = (table: Float32Array) => {
      const sums = new Float64Array(pairs)
      for (let t = 0; t < length; t++) {
        for (let i = 0; i < pairs; i++) sums[i] = (sums[i] as number) + (table[t * pairs + i] as number) / length
      }
      return sums
    }
    return { cos: mean(rotation.cos), sin: mean(rotation.sin), isInterleaved }
  }

  advance(numTokens: number): void {
    this.#next += numTokens
  }

  /** Row `row` now holds the token that is `age` tokens before the next. */
  place(head: number, row: number, age: number): void {
    if (this.#isRank) this.#numbers[head * this.#capacity + row] = this.#next - age
  }

  /** Rows were copied: from[n] to to[n]. */
  move(head: number, from: Int32Array, to: Int32Array): void {
    if (!this.#isRank) return
    const base = head * this.#capacity
    for (let n = 0; n < from.length; n++) {
      this.#numbers[base + (to[n] as number)] = this.#numbers[base + (from[n] as number)] as number
    }
  }

  /** A token older than this position has one newer neighbour less. `positions` are those of the rows of the head. */
  closeGap(head: number, position: number, positions: Float64Array, length: number): void {
    if (!this.#isRank) return
    const base = head * this.#capacity
    for (let row = 0; row < length; row++) {
      if ((positions[row] as number) >= position) continue
      this.#put(base + row, (this.#numbers[base + row] as number) + 1)
    }
  }

  #put(at: number, number: number): void {
    this.#numbers[at] = number
    if (this.#isMoved[at]) return
    this.#isMoved[at] = 1
    this.#moved[this.#numMoved++] = at
  }

  /** Numbers a head's rows anew; `order` lists them from the oldest to the newest. */
  renumber(head: number, order: ArrayLike<number>): void {
    if (!this.#isRank) return
    const base = head * this.#capacity
    for (let n = 0; n < order.length; n++) {
      const row = order[n] as number
      const number = this.#next - (order.length - n)
      if (this.#numbers[base + row] !== number) this.#put(base + row, number)
    }
  }

  /** Rotates what has moved anew. */
  apply(store: RowStore, lengths: Int32Array): void {
    if (!this.#isRank) return
    if (this.#next > this.#mostNext) this.#shiftDown(lengths)
    const count = this.#numMoved
    if (count === 0) return
    const places = this.#moved.subarray(0, count)
    for (let n = 0; n < count; n++) this.#isMoved[places[n] as number] = 0
    this.#numMoved = 0
    if (this.#rotary) store.turn(this.#turned(places, this.#rotary))
  }

  #turned(places: Int32Array, rotary: LayerRotary): TurnedRows {
    const count = places.length
    const [heads, rows, turns] = [new Int32Array(count), new Int32Array(count), new Int32Array(count)]
    for (let n = 0; n < count; n++) {
      const at = places[n] as number
      heads[n] = Math.floor(at / this.#capacity)
      rows[n] = at % this.#capacity
      turns[n] = this.#numbers[at] as number
    }
    const { pairs: rotaryPairs, isInterleaved } = rotary
    const { first, size: numTokens, cos, sin } = ranksOf(rotary, turns, this.#span)
    if (first > 0) for (let n = 0; n < count; n++) turns[n] = (turns[n] as number) - first
    return { heads, rows, turns, rotation: { cos, sin, rotaryPairs, isInterleaved }, numTokens }
  }

  get #mostNext(): number {
    return this.#span + Math.max(this.#span, this.#lookback)
  }

  #shiftDown(lengths: Int32Array): void {
    const shift = this.#next - Math.max(this.#lookback, ...lengths)
    this.#next -= shift
    for (const [head, length] of lengths.entries()) {
      for (let row = 0; row < length; row++) {
        const at = head * this.#capacity + row
        this.#put(at, (this.#numbers[at] as number) - shift)
      }
    }
  }

  /** Makes room for `capacity` rows a head. Nothing has moved then. */
  resize(capacity: number, lengths: Int32Array): void {
    if (!this.#isRank || capacity === this.#capacity) return
    const numbers = new Float64Array(this.#numKvHeads * capacity)
    for (const [k, length] of lengths.entries()) {
      const start = k * this.#capacity
      numbers.set(this.#numbers.subarray(start, start + length), k * capacity)
    }
    this.#numbers = numbers
    this.#moved = new Int32Array(numbers.length)
    this.#isMoved = new Uint8Array(numbers.length)
    this.#capacity = capacity
  }

  /** The rotary comes with the next tokens; there are no moves between calls. */
  visitState(visitor: StateVisitor, lengths: Int32Array): void {
    visitor.fixed('positions', this.#isRank ? 'rank' : 'original')
    const most = this.#isRank ? Math.max(this.#mostNext, ...lengths) : undefined
    this.#next = visitor.integer('the next position', this.#next, 0, most)
    if (!this.#isRank) return
    for (const [k, length] of lengths.entries()) {
      const start = k * this.#capacity
      visitor.integers('ranks', this.#numbers.subarray(start, start + length), 0, this.#next - 1)
    }
  }

  copyFrom(other: PositionAxis): void {
    this.#numbers = other.#numbers.slice()
    this.#moved = new Int32Array(this.#numbers.length)
    this.#isMoved = new Uint8Array(this.#numbers.length)
    this.#capacity = other.#capacity
    this.#next = other.#next
    this.#rotary = other.#rotary
  }

  reset(): void {
    this.#next = 0
  }
}
