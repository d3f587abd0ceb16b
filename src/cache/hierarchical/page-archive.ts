/**
 * Every token of a layer in pages of P by position, kept where there is room, so that tokens which a bounded cache has
 * evicted can come back: for a query, the pages with the highest bounds are attended too, but for rows that the cache
 * still holds. Pages are written when they are full, so an eviction costs nothing. A page that is lost or damaged is not
 * recalled, and that is all that it costs.
 */
import type { KeyValueSegment, Rotation } from '../../kernels/index.ts'
import type { LayerInput } from '../contract.ts'
import type { LayerConfig } from '../layout.ts'
import type { StateVisitor } from '../snapshot/state.ts'
import type { TierStats } from '../tiers/contract.ts'
import type { TieredStore } from '../tiers/tiered-store.ts'
import { OpenPage } from './open-page.ts'
import { factsOf, type Page, type RememberedPage } from './page.ts'
import { bytesOfBound } from './page-bounds.ts'
import { pageTokens } from './page-bytes.ts'
import { type PageLimits, PageList } from './page-list.ts'
import { RecalledRows } from './recalled-rows.ts'

export interface ArchiveOptions extends PageLimits {
  readonly store: TieredStore
  /** Bytes of RAM that the pages of a layer take at most. */
  readonly ramBytes: number
}

/** Counts since the cache was made. */
export interface RecallCounts {
  /** Pages that are remembered now. */
  readonly pages: number
  /** Pages of a head that were attended. */
  readonly recalled: number
  /** Pages of a head that were wanted and not to be had. */
  readonly missed: number
  /** Where pages lie; layers share them. */
  readonly tiers: readonly TierStats[]
}

/** Tokens of a chunk that are attended one by one, since evicted tokens may come back for each. */
export const recallingTokens = 32

/** Tokens until a page that was not to be had is asked for again: a tier that failed may be well again. */
const patience = 256

let numArchives = 0

export class PageArchive {
  readonly #config: LayerConfig
  readonly #options: ArchiveOptions
  readonly #hasBias: boolean
  readonly #open: OpenPage
  readonly #recalled: RecalledRows
  readonly #pages: PageList
  #seen = 0
  #numWritten = 0
  readonly #pageBytes: number
  readonly #name = `recall/${process.pid}-${Date.now().toString(36)}-${numArchives++}`
  readonly #counts = { recalled: 0, missed: 0 }
  /** Keys that slower tiers are looking for. */
  readonly #asked = new Set<string>()

  constructor(config: LayerConfig, hasBias: boolean, options: ArchiveOptions, open?: OpenPage) {
    const { kernels, shape } = config
    this.#config = { ...config, pool: undefined, residualPool: undefined, residual: 0, isRanked: false }
    this.#options = options
    this.#hasBias = hasBias
    this.#open = open ?? new OpenPage(this.#config, hasBias)
    this.#pageBytes = this.#open.bytesOf(0).reduce((sum, { length }) => sum + length, 0)
    this.#recalled = new RecalledRows(this.#config, options.store, options.recall, this.#pageBytes)
    this.#pages = new PageList(kernels, shape, options, (page) => this.#forget(page))
  }

  get counts(): RecallCounts {
    return { pages: this.#pages.entries.length, ...this.#counts, tiers: this.#options.store.stats() }
  }

  /** In RAM: pages there at most, their bounds, and the rows of those that came back last. */
  get bytes(): number {
    const pages = this.#pages.entries.length * this.#config.shape.numKvHeads * this.#pageBytes
    const rows = this.#open.bytes + this.#recalled.bytes
    return rows + this.#pages.bytes + Math.min(pages, this.#options.ramBytes)
  }

  /** Takes in tokens that the cache holds, until `leave` says otherwise. With `turn`, keys are rotated on their way in. */
  add(input: Omit<LayerInput, 'query'>, turn?: Rotation): void {
    for (let t = 0; t < input.numTokens; ) {
      const count = this.#open.add(input, t, turn)
      this.#seen += count
      t += count
      if (this.#open.length === pageTokens) this.#close()
    }
  }

  /** The page that was open is full. */
  #close(): void {
    const { bias, kept } = this.#open.facts()
    const page = this.#page(this.#seen / pageTokens - 1, bias)
    this.#options.store.put(page.keys.map((key, k) => ({ key, parts: this.#open.bytesOf(k) })))
    this.#pages.push({ page, kept }, (k) => this.#open.keysOf(k))
    this.#open.clear()
  }

  /** A key is never used again, even after `reset`: forks may still have what is under it. */
  #page(number: number, bias: Float32Array | undefined): Page {
    const askAgain = new Float64Array(this.#config.shape.numKvHeads)
    const key = `${this.#name}/${this.#numWritten++}`
    return { number, keys: Array.from(askAgain, (_, k) => `${key}/${k}`), bias, askAgain, holders: 1 }
  }

  /** What nobody remembers makes room in the tiers. */
  #forget(page: Page): void {
    this.#options.store.delete(page.keys).catch(() => undefined) // it goes when its tier needs the room
  }

  /** A head no longer holds the token at a position. */
  leave(head: number, position: number): void {
    const [number, place] = [Math.floor(position / pageTokens), position % pageTokens]
    if (number < Math.floor(this.#seen / pageTokens)) this.#pages.leave(number, head, place, this.#seen)
    else this.#open.leave(head, place)
  }

  /**
   * What a query sees besides the kept rows.
   * @param query `[H, D]`
   * @param turn what rotates it, where that has not been
   */
  recall(query: Float32Array, turn?: Rotation): KeyValueSegment[] {
    const { shape } = this.#config
    const seen = this.#seen
    this.#pages.pass(seen)
    const loaded = this.#load(this.#pages.choose(this.#turned(query, turn)))
    const lengths = Int32Array.from({ length: shape.numKvHeads }, (_, k) => (loaded[k]?.length ?? 0) * pageTokens)
    if (lengths.every((length) => length === 0)) return this.#open.segments(seen)
    const { capacity, bias } = this.#recalled
    const sizes = { capacity, lengths, seen, shape, bias }
    const facts = factsOf(sizes, (k, n) => loaded[k]?.[n] as RememberedPage)
    return [...this.#recalled.segments(lengths, facts), ...this.#open.segments(seen)]
  }

  #turned(query: Float32Array, turn: Rotation | undefined): Float32Array {
    if (!turn) return query
    const { numHeads, headDim } = this.#config.shape
    const vectors = query.slice(0, numHeads * headDim)
    this.#config.kernels.rotate({ ...turn, vectors, numTokens: 1, numHeads, headDim })
    return vectors
  }

  /** Of `[K]` lists of pages, those that are to be had. */
  #load(chosen: readonly (readonly RememberedPage[])[]): (readonly RememberedPage[])[] {
    const loaded = this.#recalled.load(chosen)
    for (const [k, entries] of chosen.entries()) {
      const there = loaded[k] as readonly RememberedPage[]
      this.#counts.recalled += there.length
      if (there.length === entries.length) continue
      for (const entry of entries) if (!there.includes(entry)) this.#fetch(entry.page, k)
    }
    return loaded
  }

  /** A slower tier may have it: then a faster one has it for one of the next queries. */
  #fetch(page: Page, head: number): void {
    const key = page.keys[head] as string
    this.#counts.missed++
    if (this.#asked.has(key)) return
    this.#asked.add(key)
    const settle = (rows: Uint8Array | undefined): void => {
      this.#asked.delete(key)
      if (rows?.length === this.#pageBytes) return
      page.askAgain[head] = this.#seen + patience
      this.#pages.wait(page, head, this.#seen)
    }
    this.#options.store.get([key]).then(
      ([rows]) => settle(rows),
      () => settle(undefined),
    )
  }

  /** @param positions those that a head of the cache holds, which are known when the state is read */
  visitState(visitor: StateVisitor, positions: (head: number) => readonly number[]): void {
    const { numKvHeads: K, headDim } = this.#config.shape
    visitor.fixed('recalled pages', this.#options.recall)
    this.#seen = visitor.integer('archived tokens', this.#seen, 0)
    this.#open.visitState(visitor, this.#seen % pageTokens)
    const next = Math.floor(this.#seen / pageTokens)
    const most = Math.min(this.#options.maxPages, next)
    const count = visitor.integer('pages that recallBytes has room for', this.#pages.entries.length, 0, most)
    visitor.fixed('bytes of a bound', bytesOfBound(headDim))
    visitor.expect('bounds of pages', count * K * bytesOfBound(headDim))
    if (visitor.isReading) this.#pages.expect(count, next)
    const entries = Array.from({ length: count }, (_, n) => this.#visitPage(visitor, n, next - count + n))
    if (!visitor.isReading) return
    this.#mark(entries, next, positions)
    this.#pages.restore(entries, this.#seen)
  }

  #visitPage(visitor: StateVisitor, n: number, number: number): RememberedPage {
    const { numKvHeads: K } = this.#config.shape
    const bias = this.#hasBias ? new Float32Array(K * pageTokens) : undefined
    const entry = this.#pages.entries[n] ?? { page: this.#page(number, bias), kept: new Uint16Array(K) }
    if (entry.page.bias) visitor.numbers(entry.page.bias)
    for (let k = 0; k < K; k++) {
      this.#pages.visitBounds(visitor, number, k)
      this.#visitRows(visitor, entry.page, k)
    }
    return entry
  }

  #visitRows(visitor: StateVisitor, page: Page, head: number): void {
    const key = page.keys[head] as string
    const [rows] = visitor.isReading ? [undefined] : this.#options.store.getNow([key])
    const isThere = visitor.integer('whether a page is there', rows?.length === this.#pageBytes ? 1 : 0, 0, 1) === 1
    if (visitor.isReading && !isThere) page.askAgain[head] = Number.POSITIVE_INFINITY
    if (!isThere) return
    const bytes = rows ?? new Uint8Array(this.#pageBytes)
    visitor.bytes(bytes)
    if (visitor.isReading) this.#options.store.put([{ key, parts: [bytes] }])
  }

  /** Which tokens of the pages the cache holds. */
  #mark(entries: readonly RememberedPage[], next: number, positions: (head: number) => readonly number[]): void {
    for (let k = 0; k < this.#config.shape.numKvHeads; k++) {
      for (const position of positions(k)) {
        const [number, place] = [Math.floor(position / pageTokens), position % pageTokens]
        const kept = entries[number - (next - entries.length)]?.kept
        if (number === next) this.#open.mark(k, place)
        else if (kept) kept[k] = (kept[k] as number) | (1 << place)
      }
    }
  }

  reset(): void {
    this.#pages.clear()
    this.#seen = 0
    this.#open.clear()
  }

  fork(): PageArchive {
    const copy = new PageArchive(this.#config, this.#hasBias, this.#options, this.#open.fork())
    copy.#seen = this.#seen
    copy.#pages.copyFrom(this.#pages, this.#seen)
    return copy
  }

  dispose(): void {
    this.#pages.dispose()
    this.#open.free()
    this.#recalled.free()
  }
}
