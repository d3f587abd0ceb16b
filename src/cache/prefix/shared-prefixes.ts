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
import { invalidState, type Stateful } from '../snapshot/state.ts'
import type { TierStats } from '../tiers/contract.ts'
import type { TieredStore } from '../tiers/tiered-store.ts'
import { KeyChain } from './key-chain.ts'
import { settingsOf } from './settings.ts'

export interface SharedPrefixesOptions {
  readonly store: TieredStore
  readonly fingerprint: string
  /** Tokens of a block. */
  readonly blockTokens: number
  /** Between two states of caches that forget; a multiple of `blockTokens`. */
  readonly checkpointTokens: number
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
  /** Tokens that were asked for, and those of them that were there. */
  readonly askedTokens: number
  readonly reusedTokens: number
  /** Blobs that were whole but not what they should be: of other tokens or settings. */
  readonly refused: number
  readonly tiers: readonly TierStats[]
}

/** Blocks that are read at once. */
const groupBlocks = 16

export class SharedPrefixes {
  readonly #options: SharedPrefixesOptions
  readonly #chains = new WeakMap<KvCache, { readonly settings: string; readonly chain: KeyChain }>()
  #askedTokens = 0
  #reusedTokens = 0
  #refused = 0

  constructor(options: SharedPrefixesOptions) {
    this.#options = options
  }

  /**
   * Fills an empty cache with as much of the beginning of `tokens` as is there, the last token excepted, since its
   * logits are wanted. Returns how many tokens it holds then.
   */
  async reuse(cache: KvCache, tokens: ArrayLike<number>, reading: Reading): Promise<number> {
    if (cache.seenTokens > 0 || tokens.length > this.#options.maxTokens) return 0
    const keys = this.#keys(cache, tokens, reading)?.slice(
      0,
      Math.floor((tokens.length - 1) / this.#options.blockTokens),
    )
    if (!keys || keys.length === 0) return 0
    const blocks = cache.visitTokens
      ? await this.#readBlocks(cache, tokens, keys)
      : await this.#readState(cache, tokens, keys)
    this.#options.store.touch(keys.slice(0, blocks))
    this.#askedTokens += tokens.length
    this.#reusedTokens += blocks * this.#options.blockTokens
    return blocks * this.#options.blockTokens
  }

  async #readBlocks(cache: KvCache, tokens: ArrayLike<number>, keys: readonly string[]): Promise<number> {
    const { store, blockTokens } = this.#options
    for (let from = 0; from < keys.length; from += groupBlocks) {
      const bodies = await store.get(keys.slice(from, from + groupBlocks))
      for (const [n, body] of bodies.entries()) {
        const first = (from + n) * blockTokens
        if (!body || !this.#take(blockOf(cache, tokens, first, blockTokens), body)) {
          cache.truncate?.(first)
          return from + n
        }
        cache.noteTokens?.(slice(tokens, first, blockTokens))
      }
    }
    return keys.length
  }

  /** The longest beginning whose state is there. */
  async #readState(cache: KvCache, tokens: ArrayLike<number>, keys: readonly string[]): Promise<number> {
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
    const keys = this.#keys(cache, tokens, reading)
    if (!keys || keys.length === 0) return
    if (cache.visitTokens) await this.#keepBlocks(cache, tokens, keys)
    else await this.#keepState(cache, keys.at(-1) as string)
  }

  #isCheckpoint({ seenTokens, dependsOnChunks }: KvCache, { textTokens, chunkSize, isWhole }: Reading): boolean {
    const { blockTokens, checkpointTokens } = this.#options
    if (dependsOnChunks) return isWhole && seenTokens % chunkSize === 0 && seenTokens % checkpointTokens === 0
    if (seenTokens % blockTokens !== 0) return false
    return seenTokens % checkpointTokens === 0 || seenTokens === lastBlockEnd(textTokens, blockTokens)
  }

  async #keepBlocks(cache: KvCache, tokens: ArrayLike<number>, keys: readonly string[]): Promise<void> {
    const { store, blockTokens } = this.#options
    const isThere = await store.has(keys)
    for (const [i, key] of keys.entries()) {
      if (isThere[i]) continue
      this.#put(key, blockOf(cache, tokens, i * blockTokens, blockTokens))
    }
    // Of a chain the first block is needed most.
    store.touch(keys)
  }

  async #keepState(cache: KvCache, key: string): Promise<void> {
    const [isThere] = await this.#options.store.has([key])
    if (!isThere) this.#put(key, { visitState: (visitor) => cache.visitState?.(visitor) })
  }

  #put(key: string, part: Stateful): void {
    try {
      this.#options.store.put([{ key, parts: [encodeState(part)] }])
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

  #keys(cache: KvCache, tokens: ArrayLike<number>, { chunkSize, ...reading }: Reading): string[] | undefined {
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
    const { store } = this.#options
    const counts = { askedTokens: this.#askedTokens, reusedTokens: this.#reusedTokens, refused: this.#refused }
    return { ...counts, tiers: store.stats() }
  }

  /** Waits until disk and Redis have what was kept. */
  close(): Promise<void> {
    return this.#options.store.close()
  }
}

/** Tokens that go before the last one of a text, in whole blocks. */
function lastBlockEnd(textTokens: number, blockTokens: number): number {
  return Math.floor((textTokens - 1) / blockTokens) * blockTokens
}

function slice(tokens: ArrayLike<number>, first: number, count: number): Int32Array {
  return Int32Array.from({ length: count }, (_, i) => tokens[first + i] as number)
}

/** The tokens of a block, then their rows. */
function blockOf(cache: KvCache, tokens: ArrayLike<number>, first: number, count: number): Stateful {
  return {
    visitState(visitor) {
      const ids = slice(tokens, first, count)
      visitor.integers('token ids', ids, 0)
      checkSame(ids, tokens, first)
      cache.visitTokens?.(visitor, first, count)
    },
  }
}

/** The whole state of a cache that has seen `count` tokens. */
function stateOf(cache: KvCache, tokens: ArrayLike<number>, count: number): Stateful {
  return {
    visitState(visitor) {
      cache.visitState?.(visitor)
      const ids = cache.tokens ?? []
      if (ids.length !== count) throw invalidState(`expected a state after ${count} tokens, got ${ids.length}`)
      checkSame(ids, tokens, 0)
    },
  }
}

function checkSame(ids: ArrayLike<number>, tokens: ArrayLike<number>, first: number): void {
  for (let i = 0; i < ids.length; i++) {
    if (ids[i] !== tokens[first + i]) throw invalidState(`expected token ${tokens[first + i]}, got ${ids[i]}`)
  }
}
