/**
 * The cache of a sequence together with what else its model remembers: states of convolutions, of recurrent layers, of
 * attention that stayed in the graph. They can't be cut back to fewer tokens, so there is no `truncate`.
 */
import type { Tensor } from 'onnxruntime-node'
import type { CacheInfo, KvCache, LayerCache, LayerExplanation } from '../cache/contract.ts'

/** Tensors by the names of the inputs that take them. Never written to: forks share them. */
export type States = ReadonlyMap<string, Tensor>

export class StatefulCache implements KvCache {
  readonly numLayers: number
  readonly explain?: () => readonly LayerExplanation[]
  readonly checkIntegrity?: () => void
  readonly #cache: KvCache
  readonly #initial: States
  #states: States
  #seenTokens: number

  /** @param initial the states before the first token */
  constructor(cache: KvCache, initial: States, states = initial, seenTokens = 0) {
    this.#cache = cache
    this.#initial = initial
    this.#states = states
    this.#seenTokens = seenTokens
    this.numLayers = cache.numLayers
    if (cache.explain) this.explain = () => cache.explain!()
    if (cache.checkIntegrity) this.checkIntegrity = () => cache.checkIntegrity!()
  }

  get seenTokens(): number {
    return this.#cache.seenTokens
  }

  get states(): States {
    return this.#states
  }

  /** Whether states and layers have seen the same tokens. */
  get isWhole(): boolean {
    return this.#seenTokens === this.#cache.seenTokens
  }

  /** Keeps what a step has made of the states, after its layers have kept its tokens. */
  keep(states: States): void {
    this.#states = states
    this.#seenTokens = this.#cache.seenTokens
  }

  layer(index: number): LayerCache {
    return this.#cache.layer(index)
  }

  getCacheInfo(): CacheInfo {
    const info = this.#cache.getCacheInfo()
    const bytes = [...this.#states.values()].reduce((sum, { data }) => sum + (data as Float32Array).byteLength, 0)
    return { ...info, bytes: info.bytes + bytes, fullBytes: info.fullBytes + bytes }
  }

  reset(): void {
    this.#cache.reset()
    this.keep(this.#initial)
  }

  fork(): StatefulCache {
    return new StatefulCache(this.#cache.fork(), this.#initial, this.#states, this.#seenTokens)
  }

  dispose(): void {
    this.#cache.dispose()
    this.#states = this.#initial
  }
}
