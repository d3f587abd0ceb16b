/** The pages of all sequences of a model under one number of bytes: a page pool for each shape of row. */
import type { Kernels } from '../../kernels/index.ts'
import { KvasirError } from '../../tensor/error.ts'
import type { KvPool } from '../contract.ts'
import { type PageBudget, PagePool } from './page-pool.ts'
import type { RowShape, RowTypes } from './row-types.ts'

export interface SharedPoolOptions {
  readonly kernels: Kernels
  readonly types: RowTypes
  readonly pageSize: number
  readonly maxBytes: number
}

export class SharedPool implements KvPool, PageBudget {
  readonly maxBytes: number
  readonly pageSize: number
  readonly types: RowTypes
  readonly #kernels: Kernels
  readonly #pools = new Map<string, PagePool>()
  #heldBytes = 0
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

  get freeBytes(): number {
    return this.maxBytes < Number.POSITIVE_INFINITY
      ? this.maxBytes - this.usedBytes - this.#heldBytes
      : Number.POSITIVE_INFINITY
  }

  hold(bytes: number): void {
    this.#heldBytes += bytes
  }

  ensure(bytes: number): void {
    if (bytes <= this.freeBytes) return
    const isEnough = (): boolean => bytes <= this.freeBytes
    for (const letGo of this.#lenders) if (!isEnough()) letGo(isEnough)
    if (isEnough()) return
    const { freeBytes, maxBytes } = this
    const message = `expected room for pages of ${bytes} bytes, got ${freeBytes} free of ${maxBytes}: the pool is used up`
    throw new KvasirError('out-of-memory', 'cache', message)
  }

  poolOf(shape: RowShape): PagePool {
    const { headDim, valueDim, keyType, valueType, hasOriginals = false } = shape
    const key = [headDim, valueDim, keyType, valueType, hasOriginals].join(' ')
    const pool = this.#pools.get(key) ?? this.#create({ headDim, valueDim, keyType, valueType, hasOriginals })
    this.#pools.set(key, pool)
    return pool
  }

  #create(shape: RowShape): PagePool {
    const { hadamard } = this.types
    return new PagePool({ ...shape, hadamard, kernels: this.#kernels, pageSize: this.pageSize, budget: this })
  }

  checkIntegrity(): void {
    for (const pool of this.#pools.values()) pool.checkIntegrity()
  }
}
