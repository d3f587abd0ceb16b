/**
 * Rows in pages of a pool, found through a table for each KV head: heads may have different lengths and hold no more
 * than that, forks share pages until one of them writes.
 */
import { usedAfterFree } from '../../kernels/host-memory.ts'
import type { SharedRows } from '../contract.ts'
import type { Room } from '../room.ts'
import type { PageHolder, PagePool } from './page-pool.ts'
import { PageRun } from './page-run.ts'
import type { RowPlanes } from './plane.ts'
import { type PageTable, PlaneStore, type StoreOptions } from './plane-store.ts'
import { mostOf, pagesWithin, type RowList, type Writes } from './row-store.ts'
import { bytesOfRow } from './row-types.ts'

export interface PagedOptions extends StoreOptions {
  readonly pool: PagePool
  /** Rows a head that the table has room for at the start. */
  readonly capacity: number
  /** The table comes back to that size; otherwise it grows by doubling. */
  readonly settles?: boolean
}

export class PagedStore extends PlaneStore implements PageHolder {
  readonly #options: PagedOptions
  readonly #pool: PagePool
  #capacity: number
  /** `[K, stride]` */
  #pages: Int32Array
  #stride: number
  #flat = new Int32Array(0)
  /** `[K]` pages that each head holds. */
  readonly #counts: Int32Array
  #isFreed = false

  constructor(options: PagedOptions) {
    super(options)
    this.#options = options
    this.#pool = options.pool
    this.#capacity = options.capacity
    this.#stride = Math.ceil(options.capacity / this.#pool.pageSize)
    this.#pages = new Int32Array(options.numKvHeads * this.#stride)
    this.#counts = new Int32Array(options.numKvHeads)
    this.#pool.join(this)
  }

  get capacity(): number {
    return this.#capacity
  }

  get bytes(): number {
    const rows = this.#counts.reduce((a, b) => a + b, 0) * this.#pool.pageSize
    return rows * bytesOfRow(this.options)
  }

  protected get planes(): RowPlanes {
    return this.#pool.planes
  }

  protected get numFlat(): number {
    return this.#pool.numRows
  }

  protected flat(head: number, row: number): number {
    const { pageSize } = this.#pool
    const page = this.#pages[head * this.#stride + Math.floor(row / pageSize)] as number
    return page * pageSize + (row % pageSize)
  }

  *heldPages(): Iterable<number> {
    for (const [k, count] of this.#counts.entries()) {
      yield* this.#pages.subarray(k * this.#stride, k * this.#stride + count)
    }
  }

  override checkIntegrity(): void {
    this.#pool.checkIntegrity()
  }

  /** Pages of a store that was freed are those of others by now. */
  #checkHeld(): void {
    if (this.#isFreed) throw usedAfterFree()
  }

  override roomFor(lengths: Int32Array, writes: Writes, room: Room): void {
    this.#checkHeld()
    const copies = this.#copiesFor(lengths, writes)
    const held = this.#counts.reduce((sum, count) => sum + count, 0)
    const kept = Math.max(0, pagesWithin(lengths, this.#pool.pageSize, writes.limit) - held)
    const most = this.#newPages(lengths)
    room.need(this.#pool, most + copies, Math.min(most, kept) + copies)
  }

  reserve(lengths: Int32Array, writes: Writes): void {
    this.#checkHeld()
    const { pageSize } = this.#pool
    this.#pool.ensure(this.#newPages(lengths) + this.#copiesFor(lengths, writes))
    this.#widen(mostOf(lengths))
    for (let k = 0; k < lengths.length; k++) {
      for (let n = this.#counts[k] as number; n * pageSize < (lengths[k] as number); n++) {
        this.#pages[k * this.#stride + n] = this.#pool.take()
        this.#counts[k] = n + 1
      }
    }
  }

  /** Pages that are not there yet. */
  #newPages(lengths: Int32Array): number {
    let added = 0
    for (let k = 0; k < lengths.length; k++) {
      added += Math.max(0, Math.ceil((lengths[k] as number) / this.#pool.pageSize) - (this.#counts[k] as number))
    }
    return added
  }

  /** The most pages that are there and must be copied before they are written. */
  #copiesFor(lengths: Int32Array, { count, rows, moved = 0 }: Writes): number {
    if (!this.#pool.hasShared) return 0
    let [all, written] = [0, 0]
    for (let k = 0; k < lengths.length; k++) {
      const first = rows === 'last' ? Math.max(0, (lengths[k] as number) - count) : 0
      const shared = this.#sharedPages(k, Math.floor(first / this.#pool.pageSize))
      written += rows === 'all' ? shared : Math.min(count, shared)
      all += moved > 0 ? this.#sharedPages(k, 0) : shared
    }
    return Math.min(all, written + moved)
  }

  #sharedPages(head: number, first: number): number {
    let shared = 0
    for (let n = first; n < (this.#counts[head] as number); n++) {
      if (this.#pool.isShared(this.#pages[head * this.#stride + n] as number)) shared++
    }
    return shared
  }

  /** Makes room in the table for `rows` rows a head. */
  #widen(rows: number): void {
    if (rows <= this.#capacity) return
    let capacity = this.#options.settles ? rows : this.#capacity
    while (capacity < rows) capacity *= 2
    this.#relay(capacity)
  }

  #relay(capacity: number): void {
    this.#capacity = capacity
    const stride = Math.ceil(this.#capacity / this.#pool.pageSize)
    const pages = new Int32Array(this.options.numKvHeads * stride)
    for (const [k, count] of this.#counts.entries()) {
      pages.set(this.#pages.subarray(k * this.#stride, k * this.#stride + count), k * stride)
    }
    this.#pages = pages
    this.#stride = stride
  }

  release(lengths: Int32Array): void {
    for (let k = 0; k < lengths.length; k++) {
      const keep = Math.ceil((lengths[k] as number) / this.#pool.pageSize)
      for (let n = keep; n < (this.#counts[k] as number); n++) {
        this.#pool.release(this.#pages[k * this.#stride + n] as number)
      }
      this.#counts[k] = Math.min(keep, this.#counts[k] as number)
    }
    if (!this.#options.settles || this.#capacity <= this.#options.capacity) return
    const capacity = Math.max(this.#options.capacity, mostOf(lengths))
    if (capacity < this.#capacity) this.#relay(capacity)
  }

  protected own(head: number, row: number): void {
    const at = head * this.#stride + Math.floor(row / this.#pool.pageSize)
    const page = this.#pages[at] as number
    if (this.#pool.isShared(page)) this.#pages[at] = this.#pool.separate(page)
  }

  protected readonly layout = 'shared'

  protected get targetRows(): number {
    return this.#pool.numRows
  }

  /** The list of places is reused from step to step. */
  protected ready({ counts, slots, stride }: RowList): Int32Array {
    for (let k = 0; k < counts.length; k++) {
      for (let n = k * stride; n < k * stride + (counts[k] as number); n++) this.own(k, slots[n] as number)
    }
    if (this.#flat.length < counts.length * stride) this.#flat = new Int32Array(counts.length * stride)
    for (let k = 0; k < counts.length; k++) {
      for (let n = k * stride; n < k * stride + (counts[k] as number); n++) {
        this.#flat[n] = this.flat(k, slots[n] as number)
      }
    }
    return this.#flat
  }

  protected get table(): PageTable {
    return { pages: this.#pages, pageSize: this.#pool.pageSize, stride: this.#stride }
  }

  share(first: number, count: number): PageRun | undefined {
    this.#checkHeld()
    const { pageSize } = this.#pool
    if (first % pageSize !== 0 || count % pageSize !== 0) return undefined
    const [from, perHead] = [first / pageSize, count / pageSize]
    const pages = new Int32Array(this.#counts.length * perHead)
    for (const k of this.#counts.keys()) {
      pages.set(this.#pages.subarray(k * this.#stride + from, k * this.#stride + from + perHead), k * perHead)
    }
    return new PageRun(this.#pool, pages)
  }

  adopt(run: SharedRows, length: number): boolean {
    this.#checkHeld()
    const { pageSize } = this.#pool
    const numHeads = this.#counts.length
    if (!(run instanceof PageRun) || run.pool !== this.#pool || run.pages.length % numHeads !== 0) return false
    const perHead = run.pages.length / numHeads
    if (length % pageSize !== 0 || !this.#counts.every((count) => count * pageSize === length)) return false
    this.#widen(length + perHead * pageSize)
    for (const [k, count] of this.#counts.entries()) {
      const own = run.pages.subarray(k * perHead, (k + 1) * perHead)
      for (const page of own) this.#pool.share(page)
      this.#pages.set(own, k * this.#stride + count)
      this.#counts[k] = count + perHead
    }
    return true
  }

  fork(lengths: Int32Array): PagedStore {
    this.#checkHeld()
    const copy = new PagedStore(this.#options)
    copy.#widen(this.#capacity)
    const { pageSize } = this.#pool
    for (const [k, length] of lengths.entries()) {
      const count = Math.ceil(length / pageSize)
      for (let n = 0; n < count; n++) {
        const page = this.#pages[k * this.#stride + n] as number
        this.#pool.share(page)
        copy.#pages[k * copy.#stride + n] = page
      }
      copy.#counts[k] = count
    }
    return copy
  }

  free(): void {
    this.release(new Int32Array(this.options.numKvHeads))
    this.#pool.leave(this)
    this.#isFreed = true
  }
}
