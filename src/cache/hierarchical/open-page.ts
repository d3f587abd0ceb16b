/** The tokens of a layer after its last full page: fewer than P. */
import type { KeyValueSegment, Rotation } from '../../kernels/index.ts'
import type { LayerInput } from '../contract.ts'
import { createStore, type LayerConfig } from '../layout.ts'
import type { StateVisitor } from '../snapshot/state.ts'
import { appendedRows, type RowList, type RowStore } from '../storage/row-store.ts'
import { factsOf } from './page.ts'
import { pageOf, pageTokens } from './page-bytes.ts'

/** The rows of a page, by place. */
const places = Int32Array.from({ length: pageTokens }, (_, place) => place)

export class OpenPage {
  readonly #config: LayerConfig
  readonly #rows: RowStore
  /** `[K, P]`; absent for models without importance. */
  readonly #bias: Float32Array | undefined
  /** `[K]`: a bit for each token that the head holds. */
  readonly #kept: Uint16Array
  #length = 0
  /** `[K, P]`: what attention is told of them. */
  readonly #hidden: Float32Array
  /** Of a single token, so that a step makes no lists. */
  readonly #single: RowList

  constructor(config: LayerConfig, hasBias: boolean, rows?: RowStore) {
    const { numKvHeads } = config.shape
    this.#config = config
    this.#rows = rows ?? createStore(config, pageTokens)
    this.#bias = hasBias ? new Float32Array(numKvHeads * pageTokens) : undefined
    this.#kept = new Uint16Array(numKvHeads)
    this.#hidden = new Float32Array(numKvHeads * pageTokens)
    this.#single = appendedRows(new Int32Array(numKvHeads), 1)
  }

  get bytes(): number {
    return this.#rows.bytes
  }

  get length(): number {
    return this.#length
  }

  /** `[K]` */
  get #lengths(): Int32Array {
    return new Int32Array(this.#kept.length).fill(this.#length)
  }

  /** Takes in tokens from `t` on, as many as there is room for; returns how many. */
  add({ key, value, importance, numTokens }: Omit<LayerInput, 'query'>, t: number, turn: Rotation | undefined): number {
    const { numKvHeads: K, headDim: D, valueDim: E } = this.#config.shape
    const count = Math.min(pageTokens - this.#length, numTokens - t)
    const part = (array: Float32Array, size: number): Float32Array => array.subarray(t * size, (t + count) * size)
    const rows = { key: part(key, K * D), value: part(value, K * E), numTokens: count }
    const pairs = turn?.rotaryPairs ?? 0
    const turned = turn && { ...turn, cos: part(turn.cos, pairs), sin: part(turn.sin, pairs) }
    if (count === 1) this.#single.slots.fill(this.#length)
    this.#rows.write(rows, count === 1 ? this.#single : appendedRows(this.#lengths, count), turned)
    for (let n = 0; n < count; n++) {
      for (let k = 0; k < K; k++) {
        const place = this.#length + n
        if (this.#bias) this.#bias[k * pageTokens + place] = importance?.[(t + n) * K + k] ?? 0
        this.#kept[k] = (this.#kept[k] as number) | (1 << place)
      }
    }
    this.#length += count
    return count
  }

  /** A head no longer holds the token at `place`. */
  leave(head: number, place: number): void {
    this.#kept[head] = (this.#kept[head] as number) & ~(1 << place)
  }

  /** A head holds the token at `place`. */
  mark(head: number, place: number): void {
    this.#kept[head] = (this.#kept[head] as number) | (1 << place)
  }

  /** What is remembered of it when it is full; `clear` makes it the next one. */
  facts(): { readonly bias: Float32Array | undefined; readonly kept: Uint16Array } {
    return { bias: this.#bias?.slice(), kept: this.#kept.slice() }
  }

  /** The rows of a head as opaque bytes. */
  bytesOf(head: number): Uint8Array[] {
    return pageOf(this.#rows, head, this.#kept.length)
  }

  /** `[P, D]` of a head, as attention reads them. */
  keysOf(head: number): Float32Array {
    return this.#rows.read('keys', head, places)
  }

  clear(): void {
    this.#length = 0
    this.#kept.fill(0)
  }

  /** What a query sees, where heads do not hold all of it. */
  segments(seen: number): KeyValueSegment[] {
    if (this.#kept.every((bits) => bits === (1 << this.#length) - 1)) return []
    const page = { number: Math.floor(seen / pageTokens), bias: this.#bias }
    const entry = { page, kept: this.#kept }
    const sizes = { capacity: pageTokens, lengths: this.#lengths, seen, shape: this.#config.shape, bias: this.#hidden }
    return this.#rows.segments(
      this.#lengths,
      factsOf(sizes, () => entry),
    )
  }

  /** For so many tokens; which of them heads hold is told by `mark`. */
  visitState(visitor: StateVisitor, length: number): void {
    this.#length = length
    if (this.#bias) visitor.numbers(this.#bias)
    this.#rows.visitRows(visitor, this.#lengths)
  }

  fork(): OpenPage {
    const copy = new OpenPage(this.#config, this.#bias !== undefined, this.#rows.fork(this.#lengths))
    if (this.#bias) copy.#bias?.set(this.#bias)
    copy.#kept.set(this.#kept)
    copy.#length = this.#length
    return copy
  }

  free(): void {
    this.#rows.free()
  }
}
