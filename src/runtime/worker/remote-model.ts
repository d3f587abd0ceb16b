/** A model in another thread, with the interface of one in this thread. */
import { Tensor } from 'onnxruntime-common'
import type { CacheOptions, CacheShape, KvCache } from '../../cache/contract.ts'
import { checkInteger, checkKeys, describe } from '../../tensor/check.ts'
import { invalidArgument } from '../../tensor/error.ts'
import { cacheKeys } from '../cache-options.ts'
import type {
  BatchEntry,
  CacheReport,
  CausalLM,
  ChatOptions,
  Conversation,
  ConversationOptions,
  GenerateOptions,
  GenerateResult,
  GenerationDefaults,
  ModelDescription,
  PrefillOptions,
  PrefillResult,
  PrefixStats,
  Prompt,
  RestoredCaches,
  SavedFile,
  StreamEvent,
  TextTokenizer,
} from '../contract.ts'
import { CachedConversation } from '../conversation.ts'
import { checkPath, onlyOne } from '../saved-caches.ts'
import { type Hold, Link } from './link.ts'
import type { ModelFacts, Port, RemoteOptions } from './protocol.ts'
import { RemoteCache, RemoteCaches } from './remote-cache.ts'

export interface RemoteParts {
  readonly port: Port
  readonly hold: Hold
  readonly facts: ModelFacts
  readonly tokenizer: TextTokenizer
  /** Settles when the thread has ended. */
  readonly ended: Promise<unknown>
}

export class RemoteModel implements CausalLM {
  readonly shape: CacheShape
  readonly vocabSize: number
  readonly tokenizer: TextTokenizer
  readonly cacheOptions: CacheOptions
  readonly generationDefaults: GenerationDefaults
  readonly #link: Link
  readonly #caches: RemoteCaches
  readonly #facts: ModelFacts
  readonly #ended: Promise<unknown>
  readonly #hold: Hold
  #disposed: Promise<void> | undefined

  constructor({ port, hold, facts, tokenizer, ended }: RemoteParts) {
    this.shape = facts.shape
    this.vocabSize = facts.vocabSize
    this.cacheOptions = facts.cacheOptions
    this.generationDefaults = facts.generationDefaults
    this.tokenizer = tokenizer
    this.#facts = facts
    this.#link = new Link(port, hold, (state) => this.#caches.update(state))
    this.#caches = new RemoteCaches((message) => this.#link.tell(message))
    this.#ended = ended
    this.#hold = hold
    ended.catch((error: unknown) => this.#link.end(error))
  }

  /** Made in the model's thread; when that fails, the first call that uses the cache says so. */
  createCache(options: Partial<CacheOptions> = {}): KvCache {
    checkKeys('runtime', 'a cache', options, cacheKeys)
    // What depends on the model and on the policy is checked where they are.
    if (options.window !== undefined) checkInteger('cache', 'window', options.window, 1)
    const cache = this.#caches.add(this.shape.numLayers)
    try {
      this.#caches.tell({ do: 'create', cache: cache.id, options })
    } catch (cause) {
      throw invalidArgument('runtime', `expected options that are data, which can cross to a thread: ${String(cause)}`)
    }
    return cache
  }

  async forward(batch: readonly BatchEntry[]): Promise<Tensor> {
    this.#checkInUse()
    if (!Array.isArray(batch)) {
      throw invalidArgument('runtime', `expected at least one entry in the batch, got ${describe(batch)}`)
    }
    const entries = batch.map((entry) => ({ ...entry, cache: this.#idOf(entry.cache) }))
    const { data, dims } = await this.#link.call('forward', { batch: entries })
    return new Tensor('float32', data, dims)
  }

  async prefill(
    cache: KvCache,
    tokens: Int32Array | readonly number[],
    options: PrefillOptions = {},
  ): Promise<PrefillResult> {
    this.#checkInUse()
    checkKeys('runtime', 'prefill', options, ['signal', 'onPrefill', 'prefixCache'])
    const remote = this.#toRemote({ ...options, cache })
    return await this.#link.call('prefill', { tokens, ...remote }, toCall(options))
  }

  saveCache(cache: KvCache, path: string): Promise<SavedFile> {
    return this.saveCaches([cache], path)
  }

  async saveCaches(caches: readonly KvCache[], path: string, note?: unknown): Promise<SavedFile> {
    this.#checkInUse()
    checkPath(path)
    return await this.#link.call('save', { caches: caches.map((cache) => this.#idOf(cache)), path, note })
  }

  async restoreCache(path: string, options?: Partial<CacheOptions>): Promise<KvCache> {
    return onlyOne(await this.restoreCaches(path, options), path)
  }

  async restoreCaches(path: string, options: Partial<CacheOptions> = {}): Promise<RestoredCaches> {
    this.#checkInUse()
    const { caches, tokens, note } = await this.#link.call('restore', { path, options })
    return { caches: caches.map((state) => this.#caches.adopt(this.shape.numLayers, state)), tokens, note }
  }

  async explainCache(cache: KvCache): Promise<CacheReport> {
    this.#checkInUse()
    return await this.#link.call('explain', { cache: this.#idOf(cache) })
  }

  async checkCache(cache: KvCache): Promise<void> {
    this.#checkInUse()
    await this.#link.call('check', { cache: this.#idOf(cache) })
  }

  async generate(prompt: Prompt, options: GenerateOptions = {}): Promise<GenerateResult> {
    this.#checkInUse()
    const call = this.#link.call('generate', { prompt, ...this.#toRemote(options) }, toCall(options))
    return (await call) as GenerateResult
  }

  async *stream(prompt: Prompt, options: GenerateOptions = {}): AsyncGenerator<StreamEvent, void, undefined> {
    this.#checkInUse()
    const { signal, onPrefill } = options
    const opened = this.#link.call('open', { prompt, ...this.#toRemote(options) })
    const stream = this.#link.lastId
    const abort = (): void => this.#link.abort(stream)
    let failure: { readonly error: unknown } | undefined
    if (onPrefill) this.#link.watch(stream, onPrefill, (error) => (failure = { error }))
    signal?.addEventListener('abort', abort, { once: true })
    let isOver = false
    try {
      await opened
      for (;;) {
        const event = await this.#link.call('next', { stream })
        isOver = event === undefined
        if (failure) throw failure.error
        if (!event) return
        yield event
      }
    } finally {
      signal?.removeEventListener('abort', abort)
      this.#link.unwatch(stream)
      if (!isOver) await this.#link.call('leave', { stream }).catch(() => undefined)
    }
  }

  async tokenize(prompt: Prompt, options: ChatOptions = {}): Promise<number[]> {
    this.#checkInUse()
    return [...(await this.#link.call('tokenize', { prompt, options }))]
  }

  startConversation(options: ConversationOptions = {}): Conversation {
    return new CachedConversation(this, options)
  }

  async prefixStats(): Promise<PrefixStats | undefined> {
    this.#checkInUse()
    return await this.#link.call('prefixStats', {})
  }

  describe(): ModelDescription {
    return this.#facts.description
  }

  /** Waits for the calls that were made before, and for the end of the thread. */
  dispose(): Promise<void> {
    this.#disposed ??= this.#link.call('dispose', {}).then(async () => {
      this.#link.end(disposed())
      this.#hold.ref() // until it has ended
      await this.#ended.catch(() => undefined)
    })
    return this.#disposed
  }

  #checkInUse(): void {
    if (this.#disposed) throw disposed()
  }

  #idOf(cache: unknown): number {
    if (cache instanceof RemoteCache && this.#caches.has(cache)) return cache.id
    const came = cache instanceof RemoteCache ? 'one that was disposed or is of another model' : describe(cache)
    throw invalidArgument('runtime', `expected a cache of this model, got ${came}`)
  }

  #toRemote({ signal, onPrefill, cache, ...options }: GenerateOptions): RemoteOptions {
    return {
      options,
      ...(cache !== undefined && { cache: this.#idOf(cache) }),
      wantsProgress: onPrefill !== undefined,
      isAborted: signal?.aborted === true,
    }
  }
}

function toCall({ signal, onPrefill }: PrefillOptions) {
  return { signal, onProgress: onPrefill }
}

function disposed(): Error {
  return invalidArgument('runtime', 'expected a model in use, got one that was disposed')
}
