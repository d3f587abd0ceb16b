/** The rows of pages that come back, as kernels read them. What the last query saw is not read from the tiers again. */
import type { KeyValueSegment } from '../../kernels/index.ts'
import { createStore, type LayerConfig } from '../layout.ts'
import type { RowFacts, RowStore } from '../row-store.ts'
import type { TieredStore } from '../tiers/tiered-store.ts'
import type { Page } from './page.ts'
import { keyOf } from './page.ts'
import { fillPage, pageTokens } from './page-bytes.ts'

export class RecalledRows {
  readonly #store: RowStore
  readonly #tiers: TieredStore
  readonly #numKvHeads: number
  readonly #pageBytes: number
  /** `[K][n]`: the page in rows n P to before (n + 1) P of each head. */
  readonly #held: (Page | undefined)[][]

  constructor(config: LayerConfig, tiers: TieredStore, most: number, pageBytes: number) {
    const { numKvHeads } = config.shape
    this.#store = createStore(config, most * pageTokens)
    this.#tiers = tiers
    this.#numKvHeads = numKvHeads
    this.#pageBytes = pageBytes
    this.#held = Array.from({ length: numKvHeads }, () => [])
  }

  get bytes(): number {
    return this.#store.bytes
  }

  get capacity(): number {
    return this.#store.capacity
  }

  /**
   * Brings pages of a head into its first rows, in this order. Returns those that were to be had.
   * @param onMissing called with each of the others
   */
  load(head: number, pages: readonly Page[], onMissing: (page: Page) => void): readonly Page[] {
    const held = this.#held[head] as (Page | undefined)[]
    held.length = Math.min(held.length, pages.length) // rows past those in use are nobody's
    const wanted = pages.flatMap((page, n) => (held[n] === page ? [] : [{ page, n }]))
    if (wanted.length === 0) return pages
    const found = this.#tiers.getNow(wanted.map(({ page }) => keyOf(page, head)))
    const missing = wanted.flatMap(({ page }, i) => (found[i]?.length === this.#pageBytes ? [] : [page]))
    if (missing.length > 0) {
      for (const page of missing) onMissing(page)
      // The others move up.
      return this.load(
        head,
        pages.filter((page) => !missing.includes(page)),
        onMissing,
      )
    }
    for (const [i, { page, n }] of wanted.entries()) {
      fillPage(this.#store, { head, numKvHeads: this.#numKvHeads, n }, found[i] as Uint8Array)
      held[n] = page
    }
    return pages
  }

  segments(lengths: Int32Array, facts: RowFacts): KeyValueSegment[] {
    return this.#store.segments(lengths, facts)
  }

  free(): void {
    this.#store.free()
  }
}
