/** A cache that lives in the thread of its model, as the caller holds it: a number, and where it stood last. */
import type { CacheInfo, KvCache, LayerCache } from '../../cache/contract.ts'
import { checkInteger } from '../../tensor/check.ts'
import { KvasirError } from '../../tensor/error.ts'
import type { CacheMessage, CacheState } from './protocol.ts'

const nothing: CacheInfo = {
  keptTokens: 0,
  seenTokens: 0,
  capacityUtilization: 0,
  bytes: 0,
  fullBytes: 0,
  evictedTokens: 0,
}

/** Gives out numbers, sends messages, and frees what nobody holds any longer. */
export class RemoteCaches {
  readonly #tell: (message: CacheMessage) => void
  readonly #caches = new Map<number, WeakRef<RemoteCache>>()
  readonly #forgotten = new FinalizationRegistry<number>((id) => this.dispose(id))
  #lastId = 0

  constructor(tell: (message: CacheMessage) => void) {
    this.#tell = tell
  }

  add(numLayers: number, info: CacheInfo = nothing, canTruncate = false): RemoteCache {
    return this.#hold(new RemoteCache(++this.#lastId, this, numLayers, info, canTruncate))
  }

  /** A cache that the model's side has made, and numbered. */
  adopt(numLayers: number, { cache, info, canTruncate }: CacheState): RemoteCache {
    return this.#hold(new RemoteCache(cache, this, numLayers, info, canTruncate))
  }

  #hold(cache: RemoteCache): RemoteCache {
    this.#caches.set(cache.id, new WeakRef(cache))
    this.#forgotten.register(cache, cache.id, cache)
    return cache
  }

  has(cache: RemoteCache): boolean {
    return this.#caches.get(cache.id)?.deref() === cache
  }

  tell(message: CacheMessage): void {
    this.#tell(message)
  }

  update({ cache, info, canTruncate }: CacheState): void {
    this.#caches.get(cache)?.deref()?.update(info, canTruncate)
  }

  dispose(id: number): void {
    const cache = this.#caches.get(id)?.deref()
    if (cache) this.#forgotten.unregister(cache)
    if (this.#caches.delete(id)) this.#tell({ do: 'dispose', cache: id })
  }
}

export class RemoteCache implements KvCache {
  readonly id: number
  readonly numLayers: number
  readonly #all: RemoteCaches
  #info: CacheInfo
  #canTruncate: boolean

  constructor(id: number, all: RemoteCaches, numLayers: number, info: CacheInfo, canTruncate: boolean) {
    this.id = id
    this.numLayers = numLayers
    this.#all = all
    this.#info = info
    this.#canTruncate = canTruncate
  }

  get seenTokens(): number {
    return this.#info.seenTokens
  }

  /** Where the cache stood after the last call that used it. */
  getCacheInfo(): CacheInfo {
    return this.#info
  }

  /** @throws KvasirError `unsupported`: layers are beside the model */
  layer(_index: number): LayerCache {
    const message =
      'expected a cache of this thread, got one that lives in the thread of its model; load with worker: false'
    throw new KvasirError('unsupported', 'runtime', message)
  }

  /** Known when the model's thread has told of this cache: after the first call that used it at the latest. */
  get truncate(): ((length: number) => void) | undefined {
    return this.#canTruncate ? (length) => this.#truncate(length) : undefined
  }

  update(info: CacheInfo, canTruncate: boolean): void {
    this.#info = info
    this.#canTruncate = canTruncate
  }

  reset(): void {
    this.#info = { ...nothing, bytes: this.#info.bytes }
    this.#all.tell({ do: 'reset', cache: this.id })
  }

  fork(): RemoteCache {
    const copy = this.#all.add(this.numLayers, this.#info, this.#canTruncate)
    this.#all.tell({ do: 'fork', cache: copy.id, from: this.id })
    return copy
  }

  dispose(): void {
    this.#all.dispose(this.id)
  }

  #truncate(length: number): void {
    checkInteger('cache', 'length', length, 0, this.seenTokens)
    const share = this.seenTokens > 0 ? length / this.seenTokens : 0
    const { fullBytes, capacityUtilization } = this.#info
    const counts = { keptTokens: length, seenTokens: length }
    const shares = { fullBytes: fullBytes * share, capacityUtilization: capacityUtilization * share }
    this.#info = { ...this.#info, ...counts, ...shares }
    this.#all.tell({ do: 'truncate', cache: this.id, length })
  }
}
