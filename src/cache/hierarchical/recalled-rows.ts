/**
 * The rows of pages that come back, as kernels read them. Each KV head has slots for as many pages as come back at once;
 * a page stays in its slot while queries ask for it, whatever comes and goes beside it, and is not read from the tiers
 * again. Kernels find pages through a table in order of position, so that what they compute does not depend on slots.
 */
import type { KeyValueSegment } from '../../kernels/index.ts'
import type { LayerConfig } from '../layout.ts'
import type { RowPlanes } from '../storage/plane.ts'
import type { RowFacts } from '../storage/row-store.ts'
import { createPlanes } from '../storage/row-types.ts'
import type { TieredStore } from '../tiers/tiered-store.ts'
import type { Page, RememberedPage } from './page.ts'
import { pageTokens } from './page-bytes.ts'

export class RecalledRows {
  /** `[K, C]`: what attention is told of them, of the last query. */
  readonly bias: Float32Array
  readonly #planes: RowPlanes
  readonly #tiers: TieredStore
  /** Slots of a head. */
  readonly #most: number
  readonly #pageBytes: number
  /** `[K][slot]` */
  readonly #held: (Page | undefined)[][]
  /** `[K]`: where pages are. */
  readonly #slots: Map<Page, number>[]
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
    this.#slots = this.#held.map(() => new Map())
    this.#table = new Int32Array(numKvHeads * most)
    this.bias = new Float32Array(numKvHeads * this.capacity)
  }

  get bytes(): number {
    return this.#planes.keys.bytes + this.#planes.values.bytes
  }

  /** Rows of a head. */
  get capacity(): number {
    return this.#most * pageTokens
  }

  /**
   * Brings pages of each head, `[K]` lists in order of position, into the first places of its table. Returns those that were
   * to be had.
   */
  load(chosen: readonly (readonly RememberedPage[])[]): (readonly RememberedPage[])[] {
    const found = this.#read(chosen)
    return chosen.map((entries, head) => {
      const slots = this.#slots[head] as Map<Page, number>
      if (found.size > 0) this.#replace(head, entries, found)
      const there = entries.every(({ page }) => slots.has(page))
        ? entries
        : entries.filter(({ page }) => slots.has(page))
      for (let n = 0; n < there.length; n++) {
        const { page } = there[n] as RememberedPage
        this.#table[head * this.#most + n] = head * this.#most + (slots.get(page) as number)
      }
      return there
    })
  }

  /** From the tiers, those that are not here, by key. */
  #read(chosen: readonly (readonly RememberedPage[])[]): Map<string, Uint8Array> {
    const keys: string[] = []
    for (let k = 0; k < chosen.length; k++) {
      const slots = this.#slots[k] as Map<Page, number>
      for (const { page } of chosen[k] as readonly RememberedPage[]) {
        if (!slots.has(page)) keys.push(page.keys[k] as string)
      }
    }
    const found = new Map<string, Uint8Array>()
    if (keys.length === 0) return found
    for (const [n, rows] of this.#tiers.getNow(keys).entries()) {
      if (rows?.length === this.#pageBytes) found.set(keys[n] as string, rows)
    }
    return found
  }

  /** Pages of a head that were read take the slots of those that are not asked for. */
  #replace(head: number, entries: readonly RememberedPage[], found: ReadonlyMap<string, Uint8Array>): void {
    const [slots, held] = [this.#slots[head] as Map<Page, number>, this.#held[head] as (Page | undefined)[]]
    const wanted = new Set(entries.map(({ page }) => page))
    let slot = 0
    for (const { page } of entries) {
      const rows = slots.has(page) ? undefined : found.get(page.keys[head] as string)
      if (!rows) continue
      while (wanted.has(held[slot] as Page)) slot++
      slots.delete(held[slot] as Page)
      this.#fill(head * this.#most + slot, rows)
      held[slot] = page
      slots.set(page, slot)
    }
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
