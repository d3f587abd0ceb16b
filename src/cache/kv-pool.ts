/** The pages of all sequences of a model under one number of bytes: a page pool for each shape of row. */
import type { Kernels } from '../kernels/index.ts'
import type { KvPool } from './contract.ts'
import { PagePool } from './page-pool.ts'
import type { RowShape, RowTypes } from './row-types.ts'

export interface SharedPoolOptions {
  readonly kernels: Kernels
  readonly types: RowTypes
  readonly pageSize: number
  readonly maxBytes: number
}

export class SharedPool implements KvPool {
  readonly maxBytes: number
  readonly pageSize: number
  readonly types: RowTypes
  readonly #kernels: Kernels
  readonly #pools = new Map<string, PagePool>()
  readonly #lenders = new Set<(isEnough: () => boolean) => void>()

  constructor({ kernels, types, pageSize, maxBytes }: SharedPoolOptions) {
    this.#kernels = kernels
    this.types = types
    this.pageSize = pageSize
    this.maxBytes = maxBytes
  }

  get usedBytes(): number {
    let bytes = 0
    for (const pool of this.#pools.values()) bytes += pool.usedPages * pool.pageBytes
    return bytes
  }

  /** `letGo` is called when pages are wanted and there are none. Returns what ends that. */
  onShortage(letGo: (isEnough: () => boolean) => void): () => void {
    this.#lenders.add(letGo)
    return () => this.#lenders.delete(letGo)
  }

  #reclaim(isEnough: () => boolean): void {
    for (const letGo of this.#lenders) if (!isEnough()) letGo(isEnough)
  }

  poolOf(shape: RowShape): PagePool {
    const { headDim, valueDim, keyType, valueType, hasOriginals = false } = shape
    const key = [headDim, valueDim, keyType, valueType, hasOriginals].join(' ')
    const pool = this.#pools.get(key) ?? this.#create({ headDim, valueDim, keyType, valueType, hasOriginals })
    this.#pools.set(key, pool)
    return pool
  }

  #create(shape: RowShape): PagePool {
    const isLimited = this.maxBytes < Number.POSITIVE_INFINITY
    const freeBytes = isLimited ? () => this.maxBytes - this.usedBytes : undefined
    const { hadamard } = this.types
    const reclaim = (isEnough: () => boolean): void => this.#reclaim(isEnough)
    return new PagePool({ ...shape, hadamard, kernels: this.#kernels, pageSize: this.pageSize, freeBytes, reclaim })
  }

  checkIntegrity(): void {
    for (const pool of this.#pools.values()) pool.checkIntegrity()
  }
}
