/**
 * What prompts that begin alike have computed before: put into tiers block by block, taken out into fresh caches.
 *
 * Caches that keep everything are shared by blocks of tokens, any number of whole blocks. Others forget, so that what
 * they hold depends on where they are: their whole state is kept at checkpoints, every so many tokens and at the last
 * whole block of a prompt, and can be reused there alone.
 *
 * Reuse gives exactly what was computed when it was kept. A text that is then read on in the same chunks has the same
 * bits as without; in other chunks, sums are rounded in another order. Where what stays depends on the chunks, states
 * are kept where chunks end anyway and nowhere else, so that reuse always has the same bits.
 */
import { isKvasirError } from '../../tensor/error.ts'
import type { KvCache } from '../contract.ts'
import { decodeState, encodeState } from '../snapshot/codec.ts'
import type { Stateful } from '../snapshot/state.ts'
import type { TierStats } from '../tiers/contract.ts'
import type { TieredStore } from '../tiers/tiered-store.ts'
import { HeldBlocks, type HeldStats } from './held-blocks.ts'
import { KeyChain } from './key-chain.ts'
import { blockOf, stateOf } from './parts.ts'
import { settingsOf } from './settings.ts'

export interface SharedPrefixesOptions {
  readonly store: TieredStore
  readonly fingerprint: string
  /** Tokens of a block. */
  readonly blockTokens: number
  /** Between two states of caches that forget; a multiple of `blockTokens`. */
  readonly checkpointTokens: number
  /** Of blocks that are held by reference (default 0: none). */
  readonly heldBytes?: number
  /** Of requests that name none. */
  readonly salt: string
  /** Longest text whose rows do not depend on its length: position tables of some models change. */
  readonly maxTokens: number
}

/** How a text is read. */
export interface Reading {
  /** Tokens that the cache will hold at the end of the text. */
  readonly textTokens: number
  /** Of a text that begins in an empty cache, chunks end at multiples of it. */
  readonly chunkSize: number
  /** Whether the text began in an empty cache. */
  readonly isWhole: boolean
  readonly salt?: string | undefined
}

/** Counts since opening. */
export interface PrefixStats {
  /** Prompts of which something was there, and those of which nothing was. */
  readonly hits: number
  readonly misses: number
  /** Tokens of all these prompts, and those of them that were there. */
  readonly askedTokens: number
  readonly reusedTokens: number
  /** Blobs that were whole but not what they should be: of other tokens or settings. */
  readonly refused: number
  /** Of caches in pages of a pool: blocks that are kept by reference. */
  readonly pages: HeldStats
  readonly tiers: readonly TierStats[]
}

export class SharedPrefixes {
  readonly #options: SharedPrefixesOptions
  readonly #chains = new WeakMap<KvCache, { readonly settings: string; readonly chain: KeyChain }>()
  readonly #held: HeldBlocks
  #hits = 0
  #misses = 0
  #askedTokens = 0
  #reusedTokens = 0
  #refused = 0

  constructor(options: SharedPrefixesOptions) {
    this.#options = options
    this.#held = new HeldBlocks(options.heldBytes ?? 0, options.blockTokens)
  }

  /**
   * Fills an empty cache with as much of the beginning of `tokens` as is there, the last token excepted, since its
   * logits are wanted. Returns how many tokens it holds then.
   */
  async reuse(cache: KvCache, tokens: ArrayLike<number>, reading: Reading): Promise<number> {
    const { blockTokens, maxTokens, store } = this.#options
    if (cache.seenTokens > 0 || tokens.length > maxTokens) return 0
    const text = new Int32Array(tokens)
    const keys = this.#keys(cache, text, reading)?.slice(0, Math.floor((text.length - 1) / blockTokens))
    if (!keys) return 0
    const blocks = cache.visitTokens
      ? await this.#readBlocks(cache, text, keys)
      : await this.#readState(cache, text, keys)
    store.touch(keys.slice(0, blocks))
    if (blocks > 0) this.#hits++
    else this.#misses++
    this.#askedTokens += text.length
    this.#reusedTokens += blocks * blockTokens
    return blocks * blockTokens
  }

  async #readBlocks(cache: KvCache, tokens: Int32Array, keys: readonly string[]): Promise<number> {
    const { store, blockTokens } = this.#options
    const isHeld = this.#held.takes(cache)
    const held = isHeld ? this.#held.reuse(cache, tokens, keys) : 0
    const take = (body: Uint8Array, n: number): boolean => {
      const first = (held + n) * blockTokens
      if (n === 0 && !this.#reserve(cache, tokens.length)) return false
      if (!this.#take(blockOf(cache, tokens, first, blockTokens), body)) return false
      cache.noteTokens?.(tokens.subarray(first, first + blockTokens))
      return true
    }
    const count = held + (await store.visit(keys.slice(held), take, isHeld))
    if (count < keys.length) cache.truncate?.(count * blockTokens)
    return count
  }

  /** Room for the whole text, which will be read into the cache in any case: growing bit by bit copies it again. */
  #reserve(cache: KvCache, length: number): boolean {
    try {
      cache.reserve?.(length)
      return true
    } catch (error) {
      this.#refuse(error)
      return false
    }
  }

  /** The longest beginning whose state is there. */
  async #readState(cache: KvCache, tokens: Int32Array, keys: readonly string[]): Promise<number> {
    const { store, blockTokens } = this.#options
    const isThere = await store.has(keys)
    for (let i = keys.length - 1; i >= 0; i--) {
      const [body] = isThere[i] ? await store.get([keys[i] as string]) : []
      if (body && this.#take(stateOf(cache, tokens, (i + 1) * blockTokens), body)) return i + 1
      if (body) cache.reset()
    }
    return 0
  }

  #take(part: Stateful, body: Uint8Array): boolean {
    try {
      decodeState(part, body)
      return true
    } catch (error) {
      this.#refuse(error)
      return false
    }
  }

  /** Where reading should stop next so that `keep` can keep a state: a number of tokens, or Infinity. */
  nextStop(cache: KvCache, { textTokens }: Reading): number {
    const { blockTokens, checkpointTokens, maxTokens } = this.#options
    const isFree = cache.visitTokens !== undefined || cache.dependsOnChunks === true || !cache.options
    if (isFree || textTokens > maxTokens) return Number.POSITIVE_INFINITY
    const seen = cache.seenTokens
    const next = (Math.floor(seen / checkpointTokens) + 1) * checkpointTokens
    const last = lastBlockEnd(textTokens, blockTokens)
    return seen < last ? Math.min(next, last) : next
  }

  /**
   * Keeps what the cache holds and nobody has kept yet, after a chunk of a text was read. Copies at once what it needs
   * of the cache; disk and Redis get it later.
   */
  async keep(cache: KvCache, reading: Reading): Promise<void> {
    const { tokens } = cache
    if (!tokens || reading.textTokens > this.#options.maxTokens) return
    if (!cache.visitTokens && !this.#isCheckpoint(cache, reading)) return
    const text = new Int32Array(tokens)
    const keys = this.#keys(cache, text, reading)
    if (!keys || keys.length === 0) return
    if (cache.visitTokens) await this.#keepBlocks(cache, text, keys)
    else await this.#keepState(cache, keys.at(-1) as string)
  }

  #isCheckpoint({ seenTokens, dependsOnChunks }: KvCache, { textTokens, chunkSize, isWhole }: Reading): boolean {
    const { blockTokens, checkpointTokens } = this.#options
    if (dependsOnChunks) return isWhole && seenTokens % chunkSize === 0 && seenTokens % checkpointTokens === 0
    if (seenTokens % blockTokens !== 0) return false
    return seenTokens % checkpointTokens === 0 || seenTokens === lastBlockEnd(textTokens, blockTokens)
  }

  async #keepBlocks(cache: KvCache, tokens: Int32Array, keys: readonly string[]): Promise<void> {
    const { store, blockTokens } = this.#options
    const isHeld = this.#held.takes(cache)
    if (isHeld) this.#held.keep(cache, tokens, keys)
    if (isHeld && !store.isLasting) return
    const isThere = await store.has(keys, isHeld)
    for (const [i, key] of keys.entries()) {
      if (!isThere[i]) this.#put(key, blockOf(cache, tokens, i * blockTokens, blockTokens), isHeld)
    }
    // Of a chain the first block is needed most.
    store.touch(keys)
  }

  async #keepState(cache: KvCache, key: string): Promise<void> {
    const [isThere] = await this.#options.store.has([key])
    if (!isThere) this.#put(key, { visitState: (visitor) => cache.visitState?.(visitor) })
  }

  #put(key: string, part: Stateful, isHeld = false): void {
    try {
      this.#options.store.put([{ key, parts: [encodeState(part)] }], isHeld)
    } catch (error) {
      this.#refuse(error)
    }
  }

  /** What can't be kept or taken is computed. */
  #refuse(error: unknown): void {
    // No room for rows: there will be none when they are computed either, and then it is said.
    if (!isKvasirError(error) || (error.code !== 'invalid-file' && error.code !== 'out-of-memory')) throw error
    this.#refused++
  }

  #keys(cache: KvCache, tokens: Int32Array, { chunkSize, ...reading }: Reading): string[] | undefined {
    const { fingerprint, salt } = this.#options
    const settings = settingsOf(cache, { fingerprint, salt: reading.salt ?? salt, chunkSize })
    if (settings === undefined) return undefined
    let known = this.#chains.get(cache)
    if (known?.settings !== settings) {
      known = { settings, chain: new KeyChain(settings, this.#options.blockTokens) }
      this.#chains.set(cache, known)
    }
    return known.chain.keysOf(tokens)
  }

  stats(): PrefixStats {
    return {
      ...{ hits: this.#hits, misses: this.#misses },
      ...{ askedTokens: this.#askedTokens, reusedTokens: this.#reusedTokens, refused: this.#refused },
      pages: this.#held.stats(),
      tiers: this.#options.store.stats(),
    }
  }

  /** Waits until disk and Redis have what was kept. */
  close(): Promise<void> {
    this.#held.close()
    return this.#options.store.close()
  }
}

/** Tokens that go before the last one of a text, in whole blocks. */
function lastBlockEnd(textTokens: number, blockTokens: number): number {
  return Math.floor((textTokens - 1) / blockTokens) * blockTokens
}
