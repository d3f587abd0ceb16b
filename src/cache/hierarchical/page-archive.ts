/**
 * Every token of a layer in pages of P by position, kept where there is room, so that tokens which a bounded cache has
 * evicted can come back: for a query, the pages with the highest bounds are attended too, but for rows that the cache
 * still holds. Pages are written when they are full, so an eviction costs nothing. A page that is lost or damaged is not
 * recalled, and that is all that it costs.
 */
import type { KeptSet, KeyValueSegment } from '../../kernels/index.ts'
import type { LayerInput } from '../contract.ts'
import { createStore, type LayerConfig } from '../layout.ts'
import { appendedRows, type RowStore } from '../row-store.ts'
import type { StateVisitor } from '../snapshot/state.ts'
import type { TieredStore } from '../tiers/tiered-store.ts'
import { fillPages, pageOf, pageTokens } from './page-bytes.ts'
import { PageSummary } from './page-summary.ts'

export interface ArchiveOptions {
  readonly store: TieredStore
  /** Pages that come back for a query and KV head. */
  readonly recall: number
  /** Pages that are remembered; the oldest go first. */
  readonly maxPages: number
}

/** A full page. Never changed, so forks share it. */
interface Page {
  /** Its first position over P. */
  readonly number: number
  readonly key: string
  readonly summary: PageSummary
  /** `[K]`: 1 where the rows of a head were not to be had. */
  readonly lost: Uint8Array
}

/** Counts since the cache was made. */
export interface RecallCounts {
  /** Pages that are remembered now. */
  readonly pages: number
  /** Pages of a head that were attended. */
  readonly recalled: number
  /** Pages of a head that were wanted and lost. */
  readonly missed: number
}

let numArchives = 0

export class PageArchive {
  readonly #config: LayerConfig
  readonly #options: ArchiveOptions
  readonly #hasBias: boolean
  /** The tokens after the last full page. */
  readonly #open: RowStore
  #openSummary: PageSummary
  readonly #recalled: RowStore
  #pages: Page[] = []
  #seen = 0
  #numWritten = 0
  readonly #pageBytes: number
  readonly #name = `recall/${process.pid}-${Date.now().toString(36)}-${numArchives++}`
  readonly #counts = { recalled: 0, missed: 0 }

  constructor(config: LayerConfig, hasBias: boolean, options: ArchiveOptions, open?: RowStore) {
    const { numKvHeads, headDim } = config.shape
    this.#config = { ...config, pool: undefined, residualPool: undefined, residual: 0, isRanked: false }
    this.#options = options
    this.#hasBias = hasBias
    this.#open = open ?? createStore(this.#config, pageTokens)
    this.#recalled = createStore(this.#config, options.recall * pageTokens)
    this.#openSummary = new PageSummary(numKvHeads, headDim)
    this.#pageBytes = pageOf(this.#open, 0, numKvHeads).reduce((sum, { length }) => sum + length, 0)
  }

  get counts(): RecallCounts {
    return { pages: this.#pages.length, ...this.#counts }
  }

  /** Takes in tokens, keys as attention reads them. */
  add({ key, value, importance, numTokens }: Omit<LayerInput, 'query'>): void {
    const { numKvHeads: K, headDim: D, valueDim: E } = this.#config.shape
    for (let t = 0; t < numTokens; ) {
      const first = this.#seen % pageTokens
      const count = Math.min(pageTokens - first, numTokens - t)
      const part = (array: Float32Array, size: number): Float32Array => array.subarray(t * size, (t + count) * size)
      const rows = { key: part(key, K * D), value: part(value, K * E), numTokens: count }
      this.#open.write(rows, appendedRows(new Int32Array(K).fill(first), count))
      for (let n = 0; n < count; n++) {
        const bias = this.#hasBias ? importance?.subarray((t + n) * K, (t + n + 1) * K) : undefined
        this.#openSummary.add(first + n, rows.key.subarray(n * K * D, (n + 1) * K * D), bias)
      }
      this.#seen += count
      t += count
      if (this.#seen % pageTokens === 0) this.#close()
    }
  }

  #close(): void {
    const { numKvHeads, headDim } = this.#config.shape
    const number = this.#seen / pageTokens - 1
    const page = this.#page(number, this.#openSummary)
    const keys = Array.from({ length: numKvHeads }, (_, k) => keyOf(page, k))
    this.#options.store.put(keys.map((key, k) => ({ key, parts: pageOf(this.#open, k, numKvHeads) })))
    this.#pages.push(page)
    if (this.#pages.length > this.#options.maxPages) this.#pages.shift()
    this.#openSummary = new PageSummary(numKvHeads, headDim)
  }

  /** A key is never used again, even after `reset`: forks may still have what is under it. */
  #page(number: number, summary: PageSummary): Page {
    const lost = new Uint8Array(this.#config.shape.numKvHeads)
    return { number, key: `${this.#name}/${this.#numWritten++}`, summary, lost }
  }

  /**
   * What a query sees besides the kept rows.
   * @param query `[H, D]`
   */
  recall(query: Float32Array, kept: KeptSet): KeyValueSegment[] {
    const masks = this.#keptRows(kept)
    const chosen = masks.map((mask, k) => this.#choose(k, this.#queriesOf(query, k), mask))
    const loaded = chosen.map((pages, k) => this.#load(k, pages))
    const lengths = fillPages(
      this.#recalled,
      loaded.map((pages) => pages.map(({ rows }) => rows)),
    )
    const segments: KeyValueSegment[] = []
    if (lengths.some((length) => length > 0)) {
      segments.push(...this.#segment(this.#recalled, lengths, (k, n) => loaded[k]![n]!.page, masks))
    }
    const left = this.#seen % pageTokens
    const number = (this.#seen - left) / pageTokens
    if (masks.some((mask) => mask[number] !== (1 << left) - 1)) {
      const open = new Int32Array(masks.length).fill(left)
      segments.push(...this.#segment(this.#open, open, () => ({ number, summary: this.#openSummary }), masks))
    }
    return segments
  }

  /** `[K]`: for each page a bit a token that the cache holds. */
  #keptRows({ positions, lengths, window }: KeptSet): Int32Array[] {
    const numPages = Math.floor(this.#seen / pageTokens) + 1
    return Array.from(lengths, (length, k) => {
      const mask = new Int32Array(numPages)
      for (let row = k * window; row < k * window + length; row++) {
        const position = positions[row] as number
        const number = Math.floor(position / pageTokens)
        mask[number] = (mask[number] as number) | (1 << (position % pageTokens))
      }
      return mask
    })
  }

  #queriesOf(query: Float32Array, head: number): Float32Array {
    const { numHeads, numKvHeads, headDim } = this.#config.shape
    const size = (numHeads / numKvHeads) * headDim
    return query.subarray(head * size, (head + 1) * size)
  }

  /** The pages with the highest bounds, by position; of equal ones the newer. */
  #choose(head: number, queries: Float32Array, mask: Int32Array): Page[] {
    const { headDim, scale = 1 / Math.sqrt(headDim) } = this.#config.shape
    const all = (1 << pageTokens) - 1
    const open = this.#pages.filter(({ number, lost }) => !lost[head] && mask[number] !== all)
    if (open.length <= this.#options.recall) return open
    const ranked = open.map((page) => ({ page, bound: page.summary.bound(head, queries, scale) }))
    ranked.sort((a, b) => b.bound - a.bound || b.page.number - a.page.number)
    const best = ranked.slice(0, this.#options.recall).map(({ page }) => page)
    return best.sort((a, b) => a.number - b.number)
  }

  #load(head: number, pages: readonly Page[]): { page: Page; rows: Uint8Array }[] {
    const keys = pages.map((page) => keyOf(page, head))
    const found = this.#options.store.getNow(keys)
    return pages.flatMap((page, i) => {
      const rows = found[i]
      if (rows?.length === this.#pageBytes) {
        this.#counts.recalled++
        return [{ page, rows }]
      }
      this.#counts.missed++
      this.#fetch(page, head)
      return []
    })
  }

  /** A slower tier may have it: then a faster one has it for one of the next queries. */
  #fetch(page: Page, head: number): void {
    void this.#options.store.get([keyOf(page, head)]).then(([rows]) => {
      if (rows?.length !== this.#pageBytes) page.lost[head] = 1
    })
  }

  /** Rows that the cache holds are hidden: it attends to them itself. */
  #segment(
    store: RowStore,
    lengths: Int32Array,
    pageAt: (head: number, n: number) => Pick<Page, 'number' | 'summary'>,
    masks: readonly Int32Array[],
  ): KeyValueSegment[] {
    const { capacity } = store
    const bias = new Float32Array(lengths.length * capacity)
    const positions = new Int32Array(lengths.length * capacity)
    for (const [k, length] of lengths.entries()) {
      for (let row = 0; row < length; row++) {
        const { number, summary } = pageAt(k, Math.floor(row / pageTokens))
        const place = row % pageTokens
        const isKept = ((masks[k]?.[number] as number) >> place) & 1
        const own = summary.bias[k * pageTokens + place] as number
        bias[k * capacity + row] = isKept ? Number.NEGATIVE_INFINITY : own
        positions[k * capacity + row] = number * pageTokens + place - (this.#seen - 1)
      }
    }
    const places = this.#config.shape.alibiSlopes && { positions }
    return store.segments(lengths, { bias, ...places, origin: this.#seen - 1 })
  }

  visitState(visitor: StateVisitor): void {
    const { numKvHeads, headDim } = this.#config.shape
    visitor.fixed('recalled pages', this.#options.recall)
    this.#seen = visitor.integer('archived tokens', this.#seen, 0)
    this.#openSummary.visitState(visitor)
    this.#open.visitRows(visitor, new Int32Array(numKvHeads).fill(this.#seen % pageTokens))
    const count = visitor.integer('pages', this.#pages.length, 0, this.#options.maxPages)
    for (let n = 0; n < count; n++) {
      const page = this.#pages[n]
      const number = visitor.integer('the number of a page', page?.number ?? 0, 0, Math.floor(this.#seen / pageTokens))
      const summary = page?.summary ?? new PageSummary(numKvHeads, headDim)
      summary.visitState(visitor)
      const own = page ?? this.#page(number, summary)
      if (!page) this.#pages.push(own)
      for (let k = 0; k < numKvHeads; k++) this.#visitPage(visitor, own, k)
    }
  }

  #visitPage(visitor: StateVisitor, page: Page, head: number): void {
    const key = keyOf(page, head)
    const [rows] = visitor.isReading ? [undefined] : this.#options.store.getNow([key])
    const isThere = visitor.integer('whether a page is there', rows?.length === this.#pageBytes ? 1 : 0, 0, 1) === 1
    if (visitor.isReading && !isThere) page.lost[head] = 1
    if (!isThere) return
    const bytes = rows ?? new Uint8Array(this.#pageBytes)
    visitor.bytes(bytes)
    if (visitor.isReading) this.#options.store.put([{ key, parts: [bytes] }])
  }

  reset(): void {
    const { numKvHeads, headDim } = this.#config.shape
    this.#pages = []
    this.#seen = 0
    this.#openSummary = new PageSummary(numKvHeads, headDim)
  }

  fork(): PageArchive {
    const lengths = new Int32Array(this.#config.shape.numKvHeads).fill(this.#seen % pageTokens)
    const copy = new PageArchive(this.#config, this.#hasBias, this.#options, this.#open.fork(lengths))
    copy.#pages = [...this.#pages]
    copy.#seen = this.#seen
    copy.#openSummary = this.#openSummary.copy()
    return copy
  }

  dispose(): void {
    this.#open.free()
    this.#recalled.free()
  }
}

function keyOf({ key }: Page, head: number): string {
  return `${key}/${head}`
}
