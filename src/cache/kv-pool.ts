/** The pages of all sequences of a model under one number of bytes: a page pool for each shape of row. */
import type { Kernels, FloatType as StorageType } from '../kernels/index.ts'
import type { KvPool } from './contract.ts'
import { PagePool } from './page-pool.ts'
import type { RowShape } from './row-store.ts'

export interface SharedPoolOptions {
  readonly kernels: Kernels
  readonly kvDtype: StorageType
  readonly pageSize: number
  readonly maxBytes: number
}

export class SharedPool implements KvPool {
  readonly maxBytes: number
  readonly pageSize: number
  readonly kvDtype: StorageType
  readonly #kernels: Kernels
  readonly #pools = new Map<string, PagePool>()

  constructor({ kernels, kvDtype, pageSize, maxBytes }: SharedPoolOptions) {
    this.#kernels = kernels
    this.kvDtype = kvDtype
    this.pageSize = pageSize
    this.maxBytes = maxBytes
  }

  get usedBytes(): number {
    let bytes = 0
    for (const pool of this.#pools.values()) bytes += pool.usedPages * pool.pageBytes
    return bytes
  }

  poolOf({ headDim, valueDim, hasOriginals = false }: RowShape): PagePool {
    const key = `${headDim} ${valueDim} ${hasOriginals}`
    const pool = this.#pools.get(key) ?? this.#create({ headDim, valueDim, hasOriginals })
    this.#pools.set(key, pool)
    return pool
  }

  #create(shape: RowShape): PagePool {
    const isLimited = this.maxBytes < Number.POSITIVE_INFINITY
    const freeBytes = isLimited ? () => this.maxBytes - this.usedBytes : undefined
    const { kvDtype, pageSize } = this
    return new PagePool({ ...shape, kernels: this.#kernels, kvDtype, pageSize, freeBytes })
  }

  checkIntegrity(): void {
    for (const pool of this.#pools.values()) pool.checkIntegrity()
  }
}
