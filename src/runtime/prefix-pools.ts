/** Where caches lie that share prefixes page by page: in one pool for each kind of row. */
import type { CacheOptions, KvPool } from '../cache/contract.ts'
import { rowTypesOf } from '../cache/storage/row-types.ts'
import type { Kernels } from '../kernels/contract.ts'
import { createKvPool } from '../policies/index.ts'

export class PrefixPools {
  readonly #kernels: Kernels
  readonly #pools = new Map<string, KvPool>()

  constructor(kernels: Kernels) {
    this.#kernels = kernels
  }

  /** The options of a cache with the pool that it shares, where it shares one. */
  place(options: CacheOptions): CacheOptions {
    if (!hasSharedPages(options)) return options
    const { kvDtype, kvDtypeK, kvDtypeV, residual, pageSize } = options
    const kind = { kvDtype, kvDtypeK, kvDtypeV, residual, pageSize }
    const name = JSON.stringify(kind)
    const pool = this.#pools.get(name) ?? createKvPool(this.#kernels, kind)
    this.#pools.set(name, pool)
    return { ...options, storage: 'paged', pool }
  }
}

/** Those that lie in pages anyway, and those that keep everything and can share every block, unless told otherwise. */
function hasSharedPages(options: CacheOptions): boolean {
  const { policy, storage, pool, window } = options
  if (pool) return false
  if (storage !== undefined) return storage === 'paged'
  return policy === 'full' && window === undefined && rowTypesOf(options).residual === 0
}
