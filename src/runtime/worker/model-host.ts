/** The model's side: does what messages ask for, with a model in this thread. */
import type { KvCache } from '../../cache/contract.ts'
import { invalidArgument } from '../../tensor/error.ts'
import type { CausalLM, StreamEvent } from '../contract.ts'
import { toErrorData } from './error-data.ts'
import type { CacheMessage, CacheState, CallName, Calls, Port, RemoteOptions, ToModel } from './protocol.ts'

/** A cache, or why it could not be made or changed. */
interface Held {
  readonly cache?: KvCache
  readonly error?: unknown
}

interface Call {
  readonly id: number
  readonly abort: AbortController
  readonly used: Set<number>
}

export class ModelHost {
  readonly #model: CausalLM
  readonly #port: Port
  readonly #onDisposed: () => void
  readonly #caches = new Map<number, Held>()
  readonly #calls = new Map<number, Call>()
  #lastRestored = 0
  readonly #streams = new Map<number, { readonly call: Call; readonly events: AsyncIterator<StreamEvent> }>()

  constructor(model: CausalLM, port: Port, onDisposed: () => void) {
    this.#model = model
    this.#port = port
    this.#onDisposed = onDisposed
    port.on('message', (message) => this.#receive(message as ToModel))
    const { shape, vocabSize, cacheOptions, generationDefaults } = model
    const facts = { shape, vocabSize, cacheOptions, generationDefaults, description: model.describe() }
    port.postMessage({ type: 'ready', facts })
  }

  #receive(message: ToModel): void {
    if (message.type === 'abort') this.#calls.get(message.id)?.abort.abort()
    else if (message.type === 'cache') this.#changeCache(message)
    else void this.#answer(message.id, message.name, message.args)
  }

  async #answer<N extends CallName>(id: number, name: N, args: Calls[N][0]): Promise<void> {
    const call: Call = { id, abort: new AbortController(), used: new Set() }
    this.#calls.set(id, call)
    try {
      const value = await this.#handlers[name](args, call)
      const transfer = name === 'forward' ? [(value as { data: Float32Array }).data.buffer as ArrayBuffer] : []
      this.#port.postMessage({ type: 'result', id, value, caches: this.#states(call) }, transfer)
    } catch (error) {
      this.#port.postMessage({ type: 'error', id, error: toErrorData(error), caches: this.#states(call) })
    } finally {
      if (!this.#streams.has(id)) this.#calls.delete(id)
      if (name === 'dispose') this.#onDisposed()
    }
  }

  readonly #handlers: { [N in CallName]: (args: Calls[N][0], call: Call) => Promise<Calls[N][1]> } = {
    forward: async ({ batch }, call) => {
      const entries = batch.map(({ cache, ...rest }) => ({ ...rest, cache: this.#use(cache, call) }))
      const { data, dims } = await this.#model.forward(entries)
      return { data: data as Float32Array, dims }
    },
    prefill: async ({ tokens, ...rest }, call) => {
      const { signal, onPrefill, cache, prefixCache } = this.#revive(rest, call)
      const choice = prefixCache === undefined ? {} : { prefixCache }
      return await this.#model.prefill(cache as KvCache, tokens, {
        ...{ signal, ...(onPrefill && { onPrefill }), ...choice },
      })
    },
    generate: async ({ prompt, ...rest }, call) => this.#model.generate(prompt, this.#revive(rest, call)),
    tokenize: async ({ prompt, options }) => this.#model.tokenize(prompt, options),
    open: async ({ prompt, ...rest }, call) => {
      const events = this.#model.stream(prompt, this.#revive(rest, call))[Symbol.asyncIterator]()
      this.#streams.set(call.id, { call, events })
      return undefined
    },
    next: async ({ stream }, call) => {
      const open = this.#streams.get(stream)
      if (!open) return undefined
      for (const cache of open.call.used) call.used.add(cache)
      const { value, done } = await open.events.next().catch((error: unknown) => {
        this.#close(stream)
        throw error
      })
      if (done) this.#close(stream)
      return done ? undefined : value
    },
    leave: async ({ stream }, call) => {
      const open = this.#streams.get(stream)
      for (const cache of open?.call.used ?? []) call.used.add(cache)
      await open?.events.return?.()
      this.#close(stream)
      return undefined
    },
    save: async ({ caches, path, note }, call) => {
      const used = caches.map((id) => this.#use(id, call))
      return await this.#model.saveCaches(used, path, note)
    },
    restore: async ({ path, options }) => {
      const { caches, ...rest } = await this.#model.restoreCaches(path, options)
      const states = caches.map((cache) => {
        this.#caches.set(--this.#lastRestored, { cache })
        return this.#state(this.#lastRestored)
      })
      return { caches: states, ...rest }
    },
    explain: async ({ cache }, call) => await this.#model.explainCache(this.#use(cache, call)),
    check: async ({ cache }, call) => {
      await this.#model.checkCache(this.#use(cache, call))
      return undefined
    },
    prefixStats: async () => await this.#model.prefixStats(),
    dispose: async () => {
      await this.#model.dispose()
      for (const { cache } of this.#caches.values()) cache?.dispose()
      return undefined
    },
  }

  #close(stream: number): void {
    this.#streams.delete(stream)
    this.#calls.delete(stream)
  }

  /** Options as the model takes them. */
  #revive({ options, cache, wantsProgress, isAborted }: RemoteOptions, call: Call) {
    if (isAborted) call.abort.abort()
    const onPrefill = (read: number, all: number): void =>
      this.#port.postMessage({ type: 'progress', id: call.id, read, all })
    return {
      ...options,
      signal: call.abort.signal,
      ...(cache !== undefined && { cache: this.#use(cache, call) }),
      ...(wantsProgress && { onPrefill }),
    }
  }

  #use(id: number, call: Call): KvCache {
    const { cache, error } = this.#caches.get(id) ?? {}
    if (error !== undefined) throw error
    if (!cache) throw invalidArgument('runtime', 'expected a cache in use, got one that was disposed')
    call.used.add(id)
    return cache
  }

  #changeCache(message: { readonly type: 'cache' } & CacheMessage): void {
    const id = message.cache
    try {
      if (message.do === 'create') this.#caches.set(id, { cache: this.#model.createCache(message.options) })
      else if (message.do === 'fork') this.#caches.set(id, { cache: this.#held(message.from).fork() })
      else if (message.do === 'truncate') this.#held(id).truncate?.(message.length)
      else if (message.do === 'reset') this.#held(id).reset()
      else {
        this.#caches.get(id)?.cache?.dispose()
        this.#caches.delete(id)
        return
      }
      this.#port.postMessage({ type: 'cache', state: this.#state(id) })
    } catch (error) {
      this.#caches.get(id)?.cache?.dispose()
      this.#caches.set(id, { error })
    }
  }

  #held(id: number): KvCache {
    const { cache, error } = this.#caches.get(id) ?? {}
    if (cache) return cache
    throw error ?? invalidArgument('runtime', 'expected a cache in use, got one that was disposed')
  }

  #states({ used }: Call): CacheState[] {
    return [...used].filter((id) => this.#caches.get(id)?.cache).map((id) => this.#state(id))
  }

  #state(id: number): CacheState {
    const cache = this.#held(id)
    return { cache: id, info: cache.getCacheInfo(), canTruncate: cache.truncate !== undefined }
  }
}
