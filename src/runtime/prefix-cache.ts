/**
 * A cache together with the tokens that it holds, which a later prompt reuses as far as it begins with the same ones.
 *
 * A cache that can forget its newest tokens goes back to the last common one. One that evicts can't; it is reused when
 * all it holds is the beginning of the prompt. Templates often write an answer differently than the model did (trimmed,
 * without its reasoning), so a fork from before the last answer is kept beside it.
 */
import type { CacheInfo, CacheOptions, KvCache } from '../cache/contract.ts'
import { invalidArgument, isKvasirError } from '../tensor/error.ts'
import type { CacheReport, CausalLM, GenerateOptions, SavedFile, StreamEvent } from './contract.ts'

export class PrefixCache {
  readonly #model: CausalLM
  readonly #options: Partial<CacheOptions> | undefined
  #cache: KvCache
  #held: readonly number[] = []
  #checkpoint: { readonly cache: KvCache; readonly held: readonly number[] } | undefined

  constructor(model: CausalLM, options: Partial<CacheOptions> | undefined) {
    this.#model = model
    this.#options = options
    this.#cache = model.createCache(options)
  }

  /**
   * Goes back to what the cache has in common with `prompt`; returns how many tokens need not be read. The last one
   * always is, since its logits are wanted.
   */
  reuse(prompt: readonly number[]): number {
    const common = Math.min(commonLength(this.#held, prompt), prompt.length - 1)
    if (common === this.#held.length) return common
    if (this.#cache.truncate) {
      this.#cache.truncate(common)
      this.#held = prompt.slice(0, common)
      return common
    }
    const { held = [], cache } = this.#checkpoint ?? {}
    if (cache && held.length < prompt.length && commonLength(held, prompt) === held.length) {
      const fork = cache.fork()
      this.#cache.dispose()
      this.#cache = fork
      this.#held = held
      return held.length
    }
    this.reset()
    return 0
  }

  /**
   * Reads `prompt` from token `reused` on and writes an answer. `stable` tokens of the prompt are expected to be in
   * later prompts too: a cache that can't go back is forked there. The result's `reusedTokens` are those that were in
   * the cache and those that others have shared.
   */
  async *stream(
    prompt: readonly number[],
    reused: number,
    stable: () => Promise<number>,
    options: GenerateOptions,
  ): AsyncGenerator<StreamEvent> {
    const written: number[] = []
    try {
      const { start, shared } = await this.#readStable(prompt, reused, stable, options)
      const rest = { ...options, cache: this.#cache, onPrefill: shifted(options.onPrefill, start, prompt.length) }
      for await (const event of this.#model.stream(prompt.slice(start), rest)) {
        if (event.type === 'token') {
          written.push(event.token)
          yield event
          continue
        }
        const { result } = event
        yield { ...event, result: { ...result, reusedTokens: reused + shared + result.reusedTokens } }
      }
    } finally {
      // Whatever was read and written before an interruption is in the cache and can be reused.
      this.#held = [...prompt, ...written].slice(0, this.#cache.seenTokens)
    }
  }

  getCacheInfo(): CacheInfo {
    return this.#cache.getCacheInfo()
  }

  explain(): Promise<CacheReport> {
    return this.#model.explainCache(this.#cache)
  }

  /** Writes the cache and the fork beside it. */
  save(path: string, note: unknown): Promise<SavedFile> {
    const fork = this.#checkpoint ? [this.#checkpoint.cache] : []
    return this.#model.saveCaches([this.#cache, ...fork], path, note)
  }

  /** Takes both from a file instead of its own; returns the note. When the file is refused nothing has changed. */
  async restore(path: string): Promise<unknown> {
    const { caches, tokens, note } = await this.#model.restoreCaches(path, this.#options)
    const [cache, fork, ...others] = caches
    if (!cache || others.length > 0) {
      for (const one of caches) one.dispose()
      throw invalidArgument('conversation', `expected the cache of a conversation in ${path}, got ${caches.length}`)
    }
    this.dispose()
    this.#cache = cache
    this.#held = Array.from(tokens[0]!)
    this.#checkpoint = fork && { cache: fork, held: Array.from(tokens[1]!) }
    return note
  }

  reset(): void {
    this.#cache.reset()
    this.#held = []
    this.#drop()
  }

  dispose(): void {
    this.#cache.dispose()
    this.#drop()
  }

  /** Returns how many tokens are in the cache then, and how many of them came from shared prefixes. */
  async #readStable(
    prompt: readonly number[],
    reused: number,
    stable: () => Promise<number>,
    { signal, onPrefill, prefixCache }: GenerateOptions,
  ): Promise<{ start: number; shared: number }> {
    if (this.#cache.truncate || signal?.aborted) return { start: reused, shared: 0 }
    const end = Math.min(await stable(), prompt.length - 1)
    if (end <= reused) return { start: reused, shared: 0 }
    const tokens = prompt.slice(reused, end)
    const choice = prefixCache === undefined ? {} : { prefixCache }
    const options = { signal, onPrefill: shifted(onPrefill, reused, prompt.length), ...choice }
    try {
      const { reusedTokens: shared } = await this.#model.prefill(this.#cache, tokens, options)
      this.#drop()
      this.#checkpoint = { cache: this.#cache.fork(), held: prompt.slice(0, end) }
      return { start: end, shared }
    } catch (error) {
      if (!isKvasirError(error) || error.code !== 'aborted') throw error
      // The stream that follows ends at once, and says that it was aborted.
      return { start: this.#cache.seenTokens, shared: 0 }
    }
  }

  #drop(): void {
    this.#checkpoint?.cache.dispose()
    this.#checkpoint = undefined
  }
}

/** Number of tokens that both begin with. */
export function commonLength(a: readonly number[], b: readonly number[]): number {
  let length = 0
  while (length < a.length && length < b.length && a[length] === b[length]) length++
  return length
}

/** Counts the whole prompt, of which `start` tokens are there already. */
function shifted(onPrefill: GenerateOptions['onPrefill'], start: number, total: number): GenerateOptions['onPrefill'] {
  return onPrefill && ((read) => onPrefill(start + read, total))
}
