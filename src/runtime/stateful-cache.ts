/**
 * The cache of a sequence together with what else its model remembers: states of convolutions, of recurrent layers, of
 * attention that stayed in the graph. They can't be cut back to fewer tokens, so there is no `truncate`.
 */
import { Tensor } from 'onnxruntime-node'
import type { CacheInfo, CacheOptions, KvCache, LayerCache, LayerExplanation } from '../cache/contract.ts'
import type { Room } from '../cache/room.ts'
import type { Stateful, StateVisitor } from '../cache/snapshot/state.ts'

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

  get options(): CacheOptions | undefined {
    return this.#cache.options
  }

  get dependsOnChunks(): boolean {
    return this.#cache.dependsOnChunks === true
  }

  get tokens(): ArrayLike<number> | undefined {
    return this.#cache.tokens
  }

  roomFor(numTokens: number, room: Room): void {
    this.#cache.roomFor?.(numTokens, room)
  }

  noteTokens(tokens: ArrayLike<number>): void {
    this.#cache.noteTokens?.(tokens)
  }

  visitState(visitor: StateVisitor): void {
    for (const part of this.stateParts()) part.visitState(visitor)
  }

  /** Those of the cache, then the states. */
  *stateParts(): Iterable<Stateful> {
    yield* this.#cache.stateParts?.() ?? []
    yield { visitState: (visitor) => this.#visitStates(visitor) }
  }

  #visitStates(visitor: StateVisitor): void {
    const states = [...this.#initial].map(([name, initial]) => {
      return [name, visitTensor(visitor, name, this.#states.get(name) ?? initial)] as const
    })
    if (visitor.isReading) this.keep(new Map(states))
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

/** Dimensions may have grown since the start; what a state is of may not have changed. */
function visitTensor(visitor: StateVisitor, name: string, tensor: Tensor): Tensor {
  visitor.fixed('state', name)
  visitor.fixed('type', tensor.type)
  const rank = visitor.integer('dimensions', tensor.dims.length, 0, 16)
  const dims = Int32Array.from({ length: rank }, (_, i) => tensor.dims[i] ?? 0)
  visitor.integers('dimensions', dims, 0)
  const data = tensor.data as Float32Array
  if (!visitor.isReading) {
    visitor.bytes(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
    return tensor
  }
  const size = dims.reduce((product, dim) => product * dim, 1)
  visitor.expect(name, size * data.BYTES_PER_ELEMENT)
  const bytes = new Uint8Array(size * data.BYTES_PER_ELEMENT)
  visitor.bytes(bytes)
  const values = new (data.constructor as Float32ArrayConstructor)(bytes.buffer)
  return new Tensor(tensor.type as 'float32', values, Array.from(dims))
}
