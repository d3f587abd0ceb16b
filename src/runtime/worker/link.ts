/** The caller's side of the messages: calls as promises, and what becomes of them when the thread ends. */
import { invalidArgument } from '../../tensor/error.ts'
import { fromErrorData } from './error-data.ts'
import type { CacheMessage, CacheState, CallName, Calls, FromModel, Port } from './protocol.ts'

interface Pending {
  readonly resolve: (value: unknown) => void
  readonly reject: (error: unknown) => void
}

type OnProgress = (read: number, all: number) => void

export interface CallOptions {
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: OnProgress | undefined
}

/** Holds the process while a call waits for its answer, and lets it end while none does. */
export interface Hold {
  ref(): void
  unref(): void
}

export class Link {
  readonly #port: Port
  readonly #hold: Hold
  readonly #onCache: (state: CacheState) => void
  readonly #pending = new Map<number, Pending>()
  readonly #progress = new Map<number, OnProgress>()
  #lastId = 0
  #end: unknown

  constructor(port: Port, hold: Hold, onCache: (state: CacheState) => void) {
    this.#port = port
    this.#hold = hold
    this.#onCache = onCache
    port.on('message', (message) => this.#receive(message as FromModel))
  }

  /** The number of the call that was made last: by it a stream is named. */
  get lastId(): number {
    return this.#lastId
  }

  call<N extends CallName>(name: N, args: Calls[N][0], options: CallOptions = {}): Promise<Calls[N][1]> {
    if (this.#end !== undefined) return Promise.reject(this.#end)
    const id = ++this.#lastId
    const abort = (): void => this.#post({ type: 'abort', id })
    const answer = new Promise<unknown>((resolve, reject) => {
      this.#pending.set(id, { resolve, reject })
      if (options.onProgress) this.watch(id, options.onProgress, reject)
    })
    try {
      this.#post({ type: 'call', id, name, args })
    } catch (cause) {
      this.#pending.delete(id)
      this.#progress.delete(id)
      // Functions and the like, where only data means something.
      return Promise.reject(invalidArgument('runtime', `expected options that are data: ${String(cause)}`))
    }
    if (this.#pending.size === 1) this.#hold.ref()
    options.signal?.addEventListener('abort', abort, { once: true })
    return answer.finally(() => {
      options.signal?.removeEventListener('abort', abort)
      if (options.onProgress) this.unwatch(id)
    }) as Promise<Calls[N][1]>
  }

  /** Aborts call `id`, or the stream that it opened. */
  abort(id: number): void {
    this.#post({ type: 'abort', id })
  }

  /** Progress of call `id`. A caller's function that throws ends the call with that error. */
  watch(id: number, onProgress: OnProgress, fail: (error: unknown) => void): void {
    this.#progress.set(id, (read, all) => {
      try {
        onProgress(read, all)
      } catch (error) {
        this.abort(id)
        fail(error)
      }
    })
  }

  unwatch(id: number): void {
    this.#progress.delete(id)
  }

  tell(message: CacheMessage): void {
    this.#post({ type: 'cache', ...message })
  }

  /** Calls that wait are refused with this error, and so is every later one. */
  end(error: unknown): void {
    this.#end ??= error
    for (const { reject } of this.#pending.values()) reject(error)
    this.#pending.clear()
  }

  #post(message: object): void {
    if (this.#end === undefined) this.#port.postMessage(message)
  }

  #receive(message: FromModel): void {
    if (message.type === 'cache') this.#onCache(message.state)
    else if (message.type === 'progress') this.#progress.get(message.id)?.(message.read, message.all)
    else if (message.type === 'result' || message.type === 'error') this.#settle(message)
  }

  #settle(message: Extract<FromModel, { type: 'result' | 'error' }>): void {
    for (const state of message.caches) this.#onCache(state)
    const pending = this.#pending.get(message.id)
    this.#pending.delete(message.id)
    if (this.#pending.size === 0) this.#hold.unref()
    if (message.type === 'result') pending?.resolve(message.value)
    else pending?.reject(fromErrorData(message.error))
  }
}
