/**
 * Blocks of caches whose rows lie in pages of a pool, kept by reference: nothing is copied, neither when a block is kept
 * nor when it is reused. What was used longest ago goes first, when there is too much, or when the pool runs out of
 * pages. Of one process and one pool: what disk and Redis get are bytes.
 */
import type { KvCache, KvPool, SharedRows } from '../contract.ts'
import { SharedPool } from '../storage/kv-pool.ts'

interface Held {
  readonly rows: SharedRows
  readonly bytes: number
  readonly tokens: Int32Array
}

/** Counts since opening, and what is held now. */
export interface HeldStats {
  readonly blocks: number
  readonly bytes: number
  /** Blocks that went to make room. */
  readonly evicted: number
}

export class HeldBlocks {
  readonly #maxBytes: number
  readonly #blockTokens: number
  /** In the order in which they were used last. */
  readonly #held = new Map<string, Held>()
  /** Numbers of pools, by which their keys differ, and what ends listening to them. */
  readonly #pools = new Map<KvPool, { readonly id: number; readonly leave: () => void }>()
  #bytes = 0
  #evicted = 0

  constructor(maxBytes: number, blockTokens: number) {
    this.#maxBytes = maxBytes
    this.#blockTokens = blockTokens
  }

  /** Whether blocks of this cache can be held: they must fill pages. */
  takes({ shareTokens, options }: KvCache): boolean {
    if (this.#maxBytes === 0 || !shareTokens || !(options?.pool instanceof SharedPool)) return false
    return this.#blockTokens % options.pool.pageSize === 0
  }

  /** Gives an empty cache as many whole blocks as are held of these; returns their number. */
  reuse(cache: KvCache, tokens: Int32Array, keys: readonly string[]): number {
    let count = 0
    for (const key of keys) {
      const held = this.#held.get(this.#nameOf(cache, key))
      const first = count * this.#blockTokens
      if (!held?.tokens.every((token, i) => token === tokens[first + i]) || !cache.adoptTokens?.(held.rows)) break
      count++
    }
    this.touch(cache, keys.slice(0, count))
    return count
  }

  /** Holds blocks of a cache that are not held yet. */
  keep(cache: KvCache, tokens: Int32Array, keys: readonly string[]): void {
    for (const [i, key] of keys.entries()) {
      const name = this.#nameOf(cache, key)
      if (this.#held.has(name)) continue
      const first = i * this.#blockTokens
      const rows = cache.shareTokens?.(first, this.#blockTokens)
      if (!rows) return
      this.#held.set(name, { rows, bytes: rows.bytes, tokens: tokens.slice(first, first + this.#blockTokens) })
      this.#bytes += rows.bytes
    }
    this.touch(cache, keys)
    this.#letGo(() => this.#bytes <= this.#maxBytes)
  }

  /** Of a chain the first block is needed most, and used last. */
  touch(cache: KvCache, keys: readonly string[]): void {
    for (const key of keys.toReversed()) {
      const name = this.#nameOf(cache, key)
      const held = this.#held.get(name)
      if (!held) continue
      this.#held.delete(name)
      this.#held.set(name, held)
    }
  }

  #letGo(isEnough: () => boolean): void {
    for (const [name, { rows, bytes }] of this.#held) {
      if (isEnough()) return
      this.#held.delete(name)
      this.#bytes -= bytes
      this.#evicted++
      rows.free()
    }
  }

  #nameOf({ options }: KvCache, key: string): string {
    const pool = options?.pool as SharedPool
    let known = this.#pools.get(pool)
    if (!known) {
      known = { id: this.#pools.size, leave: pool.onShortage((isEnough) => this.#letGo(isEnough)) }
      this.#pools.set(pool, known)
    }
    return `${known.id} ${key}`
  }

  stats(): HeldStats {
    return { blocks: this.#held.size, bytes: this.#bytes, evicted: this.#evicted }
  }

  close(): void {
    const { evicted } = this.stats()
    this.#letGo(() => false)
    this.#evicted = evicted
    for (const { leave } of this.#pools.values()) leave()
    this.#pools.clear()
  }
}
