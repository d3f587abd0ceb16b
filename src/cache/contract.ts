/** What a model needs of a KV cache: append the new tokens of one layer and attend, in one call. */

/** The new tokens of one sequence at one layer. Arrays are row-major f32; positions are applied already. */
export interface LayerInput {
  /** `[T, H, D]` */
  readonly query: Float32Array
  /** `[T, K, D]` */
  readonly key: Float32Array
  /** `[T, K, E]` */
  readonly value: Float32Array
  /** `[T, K]`: added to the logits of each key; by policy, also what is ranked. Absent for models without it. */
  readonly importance?: Float32Array
  readonly numTokens: number
}

/** One layer of one sequence. */
export interface LayerCache {
  /** Appends and attends. `output` is `[T, H, E]`. All layers of a sequence are fed the same tokens. */
  attend(input: LayerInput, output: Float32Array): void
  /**
   * Attends with other queries of the tokens of the last `attend`, over what its queries saw: for layers that share
   * keys and values. The `shape` of such a cache says `isShared`.
   */
  attendAgain(input: Pick<LayerInput, 'query' | 'numTokens'>, output: Float32Array): void
  /** Positions that KV head `head` still holds, ascending. */
  positions(head: number): number[]
  info(): CacheInfo
  reset(): void
  /** Forgets the tokens from position `length` on; only where all of those before are still held. */
  truncate?(length: number): void
  /** A copy that goes its own way. */
  fork(): LayerCache
  dispose(): void
}

/** Where a cache stands. Bytes are those of K and V (and of the bias), as allocated. */
export interface CacheInfo {
  /** Tokens that are held: the most of any head. */
  readonly keptTokens: number
  readonly seenTokens: number
  /** keptTokens over what the window holds, 0..1; for caches that grow, over what is allocated. */
  readonly capacityUtilization: number
  readonly bytes: number
  /** What a cache that keeps all tokens seen would need, in the same storage type. */
  readonly fullBytes: number
  readonly evictedTokens: number
}

/** All layers of one sequence. */
export interface KvCache {
  readonly numLayers: number
  /** Tokens appended so far: the position of the next one. */
  readonly seenTokens: number
  layer(index: number): LayerCache
  getCacheInfo(): CacheInfo
  /** Forgets the tokens from position `length` on; absent for caches that can't bring back what they evicted. */
  readonly truncate?: ((length: number) => void) | undefined
  reset(): void
  fork(): KvCache
  dispose(): void
}

/** One layer as its cache sees it: sizes, and what its attention does besides. */
export interface LayerShape {
  /** H */
  readonly numHeads: number
  /** K */
  readonly numKvHeads: number
  /** D of queries and keys */
  readonly headDim: number
  /** E, the head dim of values */
  readonly valueDim: number
  /** Factor of q . k; 1 / sqrt(D) when absent. */
  readonly scale?: number
  /** Logits become softcap * tanh(logit / softcap). */
  readonly softcap?: number
  /** Keys that a query sees, itself included; absent: all before it. */
  readonly window?: number
  /** `[H]`: logit of a virtual key whose value is zero. */
  readonly sinkLogits?: Float32Array
  /** `[H]`: subtracted from the logits, times the distance in tokens. */
  readonly alibiSlopes?: Float32Array
  /** Other layers attend over these keys and values too. */
  readonly isShared?: boolean
}

/** The shape of a model as its cache sees it. */
export interface CacheShape {
  readonly numLayers: number
  /** `[L]`: the layers that have a cache of their own. */
  readonly layers: readonly LayerShape[]
  /** Whether the model computes an importance for each token and KV head. */
  readonly hasImportance: boolean
}

/** How a sequence is cached; what a user chooses. */
export interface CacheOptions {
  /** What stays: `full`, `window` (the newest), `linear` (the most important). */
  readonly policy: PolicyName
  /** W: tokens kept for each KV head. With `full`, a query sees the W best of the whole history instead. */
  readonly window?: number
  /** First tokens that always stay (default 0). */
  readonly sinks?: number
  /** Last tokens that always stay (default 0). */
  readonly recent?: number
  /** Storage of K and V (default f32). */
  readonly kvDtype?: 'f32' | 'f16'
}

export type PolicyName = 'full' | 'window' | 'linear'
