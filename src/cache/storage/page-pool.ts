/**
 * Pages of P rows of K and V that the heads, layers and sequences of one shape of row share: reference counts, a free
 * list, growth by doubling or a fixed number of pages. Who holds a page may be many (forks); who writes must be alone.
 */
import type { Kernels } from '../../kernels/index.ts'
import { KvasirError } from '../../tensor/error.ts'
import { copyRows, planeList, type RowPlanes } from './plane.ts'
import { bytesOfRow, createPlanes, type RowShape, type RowTypes } from './row-types.ts'

export interface PagePoolOptions extends RowShape, Pick<RowTypes, 'hadamard'> {
  readonly kernels: Kernels
  /** P */
  readonly pageSize: number
  readonly budget: PageBudget
}

/** Bytes that the pages of several pools may have together. */
export interface PageBudget {
  /** Bytes that may still be taken; Infinity: as many as memory holds. */
  readonly freeBytes: number
  readonly usedBytes: number
  /** Keeps bytes from being taken, or so many less when below 0. */
  hold(bytes: number): void
  /**
   * Makes sure that so many can be taken.
   * @throws KvasirError `out-of-memory`; nothing has changed then
   */
  ensure(bytes: number): void
}

/** Something that holds pages: every entry counts as one reference. */
export interface PageHolder {
  heldPages(): Iterable<number>
}

const firstPages = 64

export class PagePool {
  readonly pageSize: number
  readonly pageBytes: number
  readonly budget: PageBudget
  readonly #options: PagePoolOptions
  readonly #holders = new Set<PageHolder>()
  #planes: RowPlanes | undefined
  #numPages = 0
  #counts = new Int32Array(0)
  /** Pages with more than one reference. */
  #numShared = 0
  /** A stack: the page that was freed last is used first, while it is still near. */
  #free: number[] = []

  constructor(options: PagePoolOptions) {
    this.#options = options
    this.pageSize = options.pageSize
    this.pageBytes = options.pageSize * bytesOfRow(options)
    this.budget = options.budget
  }

  /** Rows of all pages there are. */
  get numRows(): number {
    return this.#numPages * this.pageSize
  }

  get usedPages(): number {
    return this.#numPages - this.#free.length
  }

  /** All rows of all pages: good until a page is taken. */
  get planes(): RowPlanes {
    return this.#planes ?? this.#grow(0)
  }

  join(holder: PageHolder): void {
    this.#holders.add(holder)
  }

  leave(holder: PageHolder): void {
    this.#holders.delete(holder)
    if (this.#holders.size === 0) this.#freeAll()
  }

  /**
   * Makes sure that `count` pages can be taken.
   * @throws KvasirError `out-of-memory`; nothing has changed then
   */
  ensure(count: number): void {
    this.budget.ensure(count * this.pageBytes)
    this.allocate(count)
  }

  /** Memory for `count` more pages. */
  allocate(count: number): void {
    if (count > this.#free.length) this.#grow(this.usedPages + count)
  }

  /** A page with one reference. What it holds is left over from others. */
  take(): number {
    this.ensure(1)
    const page = this.#free.pop() as number
    this.#counts[page] = 1
    return page
  }

  share(page: number): void {
    const count = (this.#counts[page] as number) + 1
    this.#counts[page] = count
    if (count === 2) this.#numShared++
  }

  release(page: number): void {
    const count = (this.#counts[page] as number) - 1
    this.#counts[page] = count
    if (count === 1) this.#numShared--
    if (count === 0) this.#free.push(page)
  }

  isShared(page: number): boolean {
    return (this.#counts[page] as number) > 1
  }

  /** Whether any page is: a step need not look at all of them then. */
  get hasShared(): boolean {
    return this.#numShared > 0
  }

  /** Gives up one reference to a shared page for a copy of one's own. */
  separate(page: number): number {
    const copy = this.take()
    copyRows(this.planes, page * this.pageSize, this.planes, copy * this.pageSize, this.pageSize)
    this.release(page)
    return copy
  }

  /**
   * Counts everything anew from the tables that hold pages.
   * @throws KvasirError `internal` naming the page whose count is wrong
   */
  checkIntegrity(): void {
    const held = new Int32Array(this.#numPages)
    for (const holder of this.#holders) {
      for (const page of holder.heldPages()) held[page] = (held[page] as number) + 1
    }
    const free = new Set(this.#free)
    if (free.size !== this.#free.length) throw broken('a page is in the free list twice')
    for (let page = 0; page < this.#numPages; page++) {
      if (held[page] !== this.#counts[page]) {
        throw broken(`expected ${held[page]} references to page ${page}, got ${this.#counts[page]}`)
      }
      if (free.has(page) !== (held[page] === 0)) throw broken(`page ${page} is both held and free, or neither`)
    }
    const owned = held.reduce((sum, count) => sum + (count === 1 ? 1 : 0), 0)
    const shared = held.reduce((sum, count) => sum + (count > 1 ? 1 : 0), 0)
    if (shared !== this.#numShared) throw broken(`expected ${shared} shared pages, got ${this.#numShared}`)
    if (free.size + owned + shared !== this.#numPages) throw broken('free + owned + shared pages are not all pages')
  }

  #grow(least: number): RowPlanes {
    const free = Math.floor(this.budget.freeBytes / this.pageBytes)
    const numPages = Math.min(this.usedPages + free, Math.max(least, 2 * this.#numPages, firstPages))
    const planes = createPlanes(this.#options.kernels, this.#options, numPages * this.pageSize)
    if (this.#planes) copyRows(this.#planes, 0, planes, 0, this.numRows)
    freePlanes(this.#planes)
    const counts = new Int32Array(numPages)
    counts.set(this.#counts)
    this.#counts = counts
    for (let page = numPages - 1; page >= this.#numPages; page--) this.#free.unshift(page)
    this.#free.sort((a, b) => b - a)
    this.#numPages = numPages
    this.#planes = planes
    return planes
  }

  /** With the last holder the memory goes too: a pool is not disposed by anyone else. */
  #freeAll(): void {
    freePlanes(this.#planes)
    this.#planes = undefined
    this.#numPages = 0
    this.#counts = new Int32Array(0)
    this.#numShared = 0
    this.#free = []
  }
}

function freePlanes(planes: RowPlanes | undefined): void {
  for (const plane of planes ? planeList(planes) : []) plane.free()
}

function broken(message: string): KvasirError {
  return new KvasirError('internal', 'cache', `page pool: ${message}`)
}
