/** Pages of some rows of all heads of a layer, held besides those who use them. */
import type { SharedRows } from '../contract.ts'
import type { PageHolder, PagePool } from './page-pool.ts'

export class PageRun implements PageHolder, SharedRows {
  readonly pool: PagePool
  /** `[K, pages]` */
  readonly pages: Int32Array

  constructor(pool: PagePool, pages: Int32Array) {
    this.pool = pool
    this.pages = pages
    pool.join(this)
    for (const page of pages) pool.share(page)
  }

  get bytes(): number {
    return this.pages.length * this.pool.pageBytes
  }

  heldPages(): Iterable<number> {
    return this.pages
  }

  free(): void {
    for (const page of this.pages) this.pool.release(page)
    this.pool.leave(this)
  }
}
