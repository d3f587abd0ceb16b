/** The pages that one cache remembers, with numbers one after the other, and which of them may come back. */
import type { Kernels } from '../../kernels/index.ts'
import type { LayerShape } from '../contract.ts'
import type { StateVisitor } from '../snapshot/state.ts'
import { mostBias, type Page, type RememberedPage } from './page.ts'
import { type HighestSlots, PageBounds } from './page-bounds.ts'

interface HeadOfPage {
  readonly entry: RememberedPage
  readonly head: number
}

export interface PageLimits {
  /** Pages that come back for a query and KV head. */
  readonly recall: number
  /** Pages that are remembered; the oldest go first. */
  readonly maxPages: number
}

export class PageList {
  readonly #numKvHeads: number
  readonly #maxPages: number
  readonly #onForgotten: (page: Page) => void
  readonly #bounds: PageBounds
  readonly #highest: HighestSlots
  #entries: RememberedPage[] = []
  /** Number of the page to come. */
  #next = 0
  /** Those that are left alone for a while. */
  #waiting: HeadOfPage[] = []

  /** @param onForgotten called with a page that nobody remembers any longer */
  constructor(
    kernels: Kernels,
    shape: LayerShape,
    { maxPages, recall }: PageLimits,
    onForgotten: (page: Page) => void,
  ) {
    this.#numKvHeads = shape.numKvHeads
    this.#maxPages = maxPages
    this.#onForgotten = onForgotten
    this.#bounds = new PageBounds(kernels, shape, maxPages)
    const K = shape.numKvHeads
    this.#highest = { rows: new Int32Array(K * recall), lengths: new Int32Array(K) }
  }

  get entries(): readonly RememberedPage[] {
    return this.#entries
  }

  /** Of bounds. */
  get bytes(): number {
    return this.#bounds.bytes
  }

  get #first(): number {
    return this.#next - this.#entries.length
  }

  /**
   * The next page; the oldest goes where there are too many.
   * @param keysOf those of a head, `[P, D]` as attention reads them
   */
  push(entry: RememberedPage, keysOf: (head: number) => Float32Array): void {
    if (this.#entries.length === this.#maxPages) this.#release([this.#entries.shift() as RememberedPage])
    this.#next = entry.page.number + 1
    this.#bounds.reserve(this.#entries.length + 1, this.#first - 1)
    this.#entries.push(entry)
    this.#bounds.set(entry.page.number, keysOf)
    for (let k = 0; k < this.#numKvHeads; k++) this.#refresh({ entry, head: k }, 0)
  }

  #release(entries: readonly RememberedPage[]): void {
    for (const { page } of entries) if (--page.holders === 0) this.#onForgotten(page)
  }

  /** A head no longer holds the token at `place` of a page. */
  leave(number: number, head: number, place: number, seen: number): void {
    const entry = this.#entries[number - this.#first]
    if (!entry) return
    entry.kept[head] = (entry.kept[head] as number) & ~(1 << place)
    this.#refresh({ entry, head }, seen)
  }

  /** The rows of a head were not to be had: not to be asked for before `askAgain`. */
  wait(page: Page, head: number, seen: number): void {
    const entry = this.#entries[page.number - this.#first]
    if (entry?.page === page) this.#refresh({ entry, head }, seen)
  }

  /** After so many tokens: some need wait no longer. */
  pass(seen: number): void {
    const isOver = ({ entry, head }: HeadOfPage): boolean => (entry.page.askAgain[head] as number) <= seen
    if (!this.#waiting.some(isOver)) return
    const over = this.#waiting.filter(isOver)
    this.#waiting = this.#waiting.filter((item) => !isOver(item))
    for (const item of over) if (this.#entries.includes(item.entry)) this.#refresh(item, seen)
  }

  #refresh(item: HeadOfPage, seen: number): void {
    const { entry, head } = item
    const askAgain = entry.page.askAgain[head] as number
    const mustWait = askAgain > seen
    this.#bounds.setBias(entry.page.number, head, mustWait ? Number.NEGATIVE_INFINITY : mostBias(entry, head))
    if (!mustWait || askAgain === Number.POSITIVE_INFINITY) return
    if (!this.#waiting.some((other) => other.entry === entry && other.head === head)) this.#waiting.push(item)
  }

  /**
   * `[K]`: the pages with the highest bounds, by position; of equal ones the one in the later slot.
   * @param query `[H, D]`, rotated
   */
  choose(query: Float32Array): RememberedPage[][] {
    if (this.#entries.length === 0) return []
    this.#bounds.findHighest(query, this.#highest)
    const { rows, lengths } = this.#highest
    const { capacity } = this.#bounds
    const [start, most] = [this.#first % capacity, rows.length / lengths.length]
    return Array.from(lengths, (length, k) => {
      const slots = Array.from(rows.subarray(k * most, k * most + length))
      const places = slots.map((slot) => (slot - start + capacity) % capacity).sort((a, b) => a - b)
      return places.map((n) => this.#entries[n] as RememberedPage)
    })
  }

  /** Room for pages that `visitBounds` and `restore` then bring. */
  expect(count: number, next: number): void {
    this.#next = next
    this.#bounds.reserve(count, next - count)
  }

  visitBounds(visitor: StateVisitor, number: number, head: number): void {
    this.#bounds.visitPage(visitor, number, head)
  }

  /** Pages whose bounds are there. */
  restore(entries: readonly RememberedPage[], seen: number): void {
    this.#entries = [...entries]
    for (const entry of entries) for (let k = 0; k < this.#numKvHeads; k++) this.#refresh({ entry, head: k }, seen)
  }

  copyFrom(other: PageList, seen: number): void {
    this.#next = other.#next
    this.#bounds.copyFrom(other.#bounds)
    for (const { page } of other.#entries) page.holders++
    const copies = other.#entries.map(({ page, kept }) => ({ page, kept: kept.slice() }))
    this.restore(copies, seen)
  }

  clear(): void {
    this.#release(this.#entries)
    this.#entries = []
    this.#waiting = []
    this.#next = 0
    this.#bounds.clear()
  }

  dispose(): void {
    this.#release(this.#entries)
    this.#entries = []
    this.#bounds.dispose()
  }
}
