/**
 * A cache that keeps everything and writes down who attends to what: keys, values and importance of all tokens, and the
 * attention that each token gets from later ones, added up over stretches of queries.
 */

import { attentionOf } from '../../src/cache/attend-args.ts'
import type { CacheInfo, KvCache, LayerCache, LayerInput, LayerRotary, LayerShape } from '../../src/cache/contract.ts'
import type { AttendArgs, Kernels } from '../../src/kernels/index.ts'
import type { CausalLM } from '../../src/runtime/contract.ts'
import { KvasirError } from '../../src/tensor/error.ts'

/** Queries whose attention is one sum. */
const stretchTokens = 32

/** Attention of queries `first` to `first + count - 1`. */
export interface Stretch {
  readonly first: number
  readonly count: number
  /** `[K, C]` by KV head and token: summed over the queries and the G heads */
  readonly masses: Float32Array
}

type Turn = {
  readonly cos: Float32Array
  readonly sin: Float32Array
  readonly rotaryPairs: number
  readonly isInterleaved: boolean
}

export class WeighingLayer implements LayerCache {
  readonly rotates = true
  readonly shape: LayerShape
  /** C */
  readonly capacity: number
  /** `[C, K, D]`, rotated */
  readonly keys: Float32Array
  /** `[C, K, E]` */
  readonly values: Float32Array
  /** `[K, C]`; absent for models without */
  readonly importance: Float32Array | undefined
  readonly stretches: Stretch[] = []
  /** As the model says; null: not rotated. */
  rotary: LayerRotary | null = null
  readonly #kernels: Kernels
  #seen = 0

  constructor(kernels: Kernels, shape: LayerShape, capacity: number, hasImportance: boolean) {
    const { numKvHeads: K, headDim, valueDim } = shape
    this.#kernels = kernels
    this.shape = shape
    this.capacity = capacity
    this.keys = new Float32Array(capacity * K * headDim)
    this.values = new Float32Array(capacity * K * valueDim)
    this.importance = hasImportance ? new Float32Array(K * capacity) : undefined
  }

  attend(input: LayerInput, output: Float32Array): void {
    const { numTokens: T, rotary = null, importance } = input
    const { numKvHeads: K, headDim, valueDim } = this.shape
    if (this.#seen + T > this.capacity) {
      throw new KvasirError('internal', 'eval', `expected at most ${this.capacity} tokens, got ${this.#seen + T}`)
    }
    this.rotary = rotary
    const turn = this.#turn(rotary, this.#seen, T)
    const key = input.key.slice(0, T * K * headDim)
    if (turn) this.#kernels.rotate({ ...turn, vectors: key, numTokens: T, numHeads: K, headDim })
    this.keys.set(key, this.#seen * K * headDim)
    this.values.set(input.value.subarray(0, T * K * valueDim), this.#seen * K * valueDim)
    for (let t = 0; importance && this.importance && t < T; t++) {
      for (let k = 0; k < K; k++) this.importance[k * this.capacity + this.#seen + t] = importance[t * K + k] as number
    }
    this.#seen += T
    for (let first = this.#seen - T; first < this.#seen; first += stretchTokens) {
      const count = Math.min(stretchTokens, this.#seen - first)
      this.stretches.push({ first, count, masses: new Float32Array(K * this.capacity) })
    }
    this.#weigh(input, output, turn)
  }

  attendAgain(input: Pick<LayerInput, 'query' | 'numTokens' | 'rotary'>, output: Float32Array): void {
    this.#weigh(input, output, this.#turn(input.rotary ?? null, this.#seen - input.numTokens, input.numTokens))
  }

  #turn(rotary: LayerRotary | null, first: number, numTokens: number): Turn | undefined {
    if (!rotary) return undefined
    const { pairs, isInterleaved, textLength = first + numTokens } = rotary
    const [cos, sin] = [new Float32Array(numTokens * pairs), new Float32Array(numTokens * pairs)]
    rotary.fill(
      Array.from({ length: numTokens }, (_, t) => first + t),
      textLength,
      cos,
      sin,
    )
    return { cos, sin, rotaryPairs: pairs, isInterleaved }
  }

  /** The last T queries over everything before them, then who got what, a stretch at a time. */
  #weigh(
    { query, numTokens: T }: Pick<LayerInput, 'query' | 'numTokens'>,
    output: Float32Array,
    rotation?: Turn,
  ): void {
    const { numHeads, numKvHeads, headDim, valueDim, window } = this.shape
    const first = this.#seen - T
    const lse = new Float32Array(T * numHeads)
    const segment = {
      ...{ keys: this.keys, values: this.values, layout: 'token-major' as const, capacity: this.capacity },
      ...{ lengths: new Int32Array(numKvHeads).fill(this.#seen), bias: this.importance, firstPosition: 0 },
    }
    const args: AttendArgs = {
      ...{ query, output, lse, numTokens: T, ...attentionOf({ shape: this.shape }), firstPosition: first, rotation },
      ...{ left: window === undefined ? undefined : window - 1, right: 0, segments: [segment] },
    }
    this.#kernels.attend(args)
    for (const stretch of this.stretches) {
      if (stretch.first < first) continue
      const [from, to] = [stretch.first - first, stretch.first - first + stretch.count]
      const part = (array: Float32Array, size: number): Float32Array => array.subarray(from * size, to * size)
      const turn = rotation && {
        ...rotation,
        ...{ cos: part(rotation.cos, rotation.rotaryPairs), sin: part(rotation.sin, rotation.rotaryPairs) },
      }
      this.#kernels.weigh({
        ...args,
        ...{
          query: part(query, numHeads * headDim),
          output: part(output, numHeads * valueDim),
          lse: part(lse, numHeads),
        },
        ...{ numTokens: stretch.count, firstPosition: stretch.first, rotation: turn, masses: [stretch.masses] },
      })
    }
  }

  positions(): number[] {
    return Array.from({ length: this.#seen }, (_, i) => i)
  }

  info(): CacheInfo {
    const bytes = this.keys.byteLength + this.values.byteLength
    const counts = { keptTokens: this.#seen, seenTokens: this.#seen, evictedTokens: 0 }
    return { ...counts, capacityUtilization: this.#seen / this.capacity, bytes, fullBytes: bytes }
  }

  reset(): void {
    this.#seen = 0
    this.stretches.length = 0
  }

  visitState(): void {
    throw onlyOnce()
  }

  fork(): LayerCache {
    throw onlyOnce()
  }

  dispose(): void {}
}

/** All layers of one text of at most `capacity` tokens; for models of this thread. */
export class WeighingCache implements KvCache {
  readonly layers: readonly WeighingLayer[]

  constructor(kernels: Kernels, { layers, hasImportance }: CausalLM['shape'], capacity: number) {
    this.layers = layers.map((shape) => new WeighingLayer(kernels, shape, capacity, hasImportance))
  }

  get numLayers(): number {
    return this.layers.length
  }

  /** As the last layer has it: while a step runs, the others are ahead. */
  get seenTokens(): number {
    return (this.layers.at(-1) as WeighingLayer).info().seenTokens
  }

  layer(index: number): WeighingLayer {
    return this.layers[index] as WeighingLayer
  }

  getCacheInfo(): CacheInfo {
    return (this.layers.at(-1) as WeighingLayer).info()
  }

  reset(): void {
    for (const layer of this.layers) layer.reset()
  }

  fork(): KvCache {
    throw onlyOnce()
  }

  dispose(): void {}
}

function onlyOnce(): KvasirError {
  return new KvasirError(
    'unsupported',
    'eval',
    'expected a cache to read one text with: this one is neither forked nor saved',
  )
}
