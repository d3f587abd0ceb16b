/**
 * The rows of pages that come back, as kernels read them. Each KV head has slots for as many pages as come back at once;
 * a page stays in its slot while queries ask for it, whatever comes and goes beside it, and is not read from the tiers
 * again. Kernels find pages through a table in order of position, so that what they compute does not depend on slots.
 */
import type { KeyValueSegment } from '../../kernels/index.ts'
import type { LayerConfig } from '../layout.ts'
import type { RowPlanes } from '../plane.ts'
import type { RowFacts } from '../row-store.ts'
import { createPlanes } from '../row-types.ts'
import type { TieredStore } from '../tiers/tiered-store.ts'
import type { Page } from './page.ts'
import { keyOf } from './page.ts'
import { pageTokens } from './page-bytes.ts'

export class RecalledRows {
  readonly #planes: RowPlanes
  readonly #tiers: TieredStore
  /** Slots of a head. */
  readonly #most: number
  readonly #pageBytes: number
  /** `[K][slot]` */
  readonly #held: (Page | undefined)[][]
  /** `[K, most]`: slots, of all heads, in order of position. */
  readonly #table: Int32Array

  constructor(config: LayerConfig, tiers: TieredStore, most: number, pageBytes: number) {
    const { kernels, shape, keyType, valueType, hadamard } = config
    const { numKvHeads, headDim, valueDim } = shape
    const rows = { headDim, valueDim, keyType, valueType, hadamard }
    this.#planes = createPlanes(kernels, rows, numKvHeads * most * pageTokens)
    this.#tiers = tiers
    this.#most = most
    this.#pageBytes = pageBytes
    this.#held = Array.from({ length: numKvHeads }, () => new Array<Page | undefined>(most).fill(undefined))
    this.#table = new Int32Array(numKvHeads * most)
  }

  get bytes(): number {
    return this.#planes.keys.bytes + this.#planes.values.bytes
  }

  /** Rows of a head. */
  get capacity(): number {
    return this.#most * pageTokens
  }

  /**
   * Brings pages of a head, in order of position, into the first places of its table. Returns those that were to be had.
   * @param onMissing called with each of the others
   */
  load(head: number, pages: readonly Page[], onMissing: (page: Page) => void): readonly Page[] {
    const held = this.#held[head] as (Page | undefined)[]
    const wanted = pages.filter((page) => !held.includes(page))
    const found = wanted.length > 0 ? this.#tiers.getNow(wanted.map((page) => keyOf(page, head))) : []
    const missing = new Set<Page>()
    let slot = 0
    for (const [n, page] of wanted.entries()) {
      const bytes = found[n]
      if (bytes?.length !== this.#pageBytes) {
        missing.add(page)
        continue
      }
      while (pages.includes(held[slot] as Page)) slot++
      this.#fill(head * this.#most + slot, bytes as Uint8Array)
      held[slot] = page
    }
    const there = missing.size > 0 ? pages.filter((page) => !missing.has(page)) : pages
    for (const [n, page] of there.entries()) {
      this.#table[head * this.#most + n] = head * this.#most + held.indexOf(page)
    }
    for (const page of missing) onMissing(page)
    return there
  }

  /** A page is its keys, then its values. */
  #fill(slot: number, bytes: Uint8Array): void {
    const { keys, values } = this.#planes
    const keyBytes = pageTokens * keys.rowBytes
    keys.rows(slot * pageTokens, pageTokens).set(bytes.subarray(0, keyBytes))
    values.rows(slot * pageTokens, pageTokens).set(bytes.subarray(keyBytes))
  }

  segments(lengths: Int32Array, { bias, positions }: RowFacts): KeyValueSegment[] {
    const { keys, values } = this.#planes
    const storages = { keyStorage: keys.format.storage, valueStorage: values.format.storage }
    const table = { layout: 'shared', pages: this.#table, pageSize: pageTokens, pagesStride: this.#most } as const
    const facts = { capacity: this.capacity, lengths, bias, positions }
    return [{ keys: keys.array, values: values.array, ...storages, ...table, ...facts }]
  }

  free(): void {
    this.#planes.keys.free()
    this.#planes.values.free()
  }
}
