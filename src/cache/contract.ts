/** What a model needs of a KV cache: append the new tokens of one layer and attend, in one call. */

import type { RecallCounts } from './hierarchical/page-archive.ts'
import type { CacheOptions } from './options.ts'
import type { Room } from './room.ts'
import type { Stateful, StateVisitor } from './snapshot/state.ts'

export type * from './options.ts'

/**
 * What turns queries and keys of a layer, for caches that do it themselves. Made by whoever knows the model's encoding.
 */
export interface LayerRotary {
  /** R */
  readonly pairs: number
  readonly isInterleaved: boolean
  /** Tokens that the sequence has when all of the text is in of which these are a chunk (default: as many as now). */
  readonly textLength?: number
  /**
   * Writes the cosines and sines of positions, for a sequence of `length` tokens.
   * @param cos out `[T, R]`
   * @param sin out `[T, R]`
   */
  fill(positions: ArrayLike<number>, length: number, cos: Float32Array, sin: Float32Array): void
}

/**
 * The new tokens of one sequence at one layer. Arrays are row-major f32. Positions are applied already, unless the layer
 * `rotates`: then queries and keys come as the model made them, with `rotary`.
 */
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
  /** For layers that `rotates`; null where positions do nothing. */
  readonly rotary?: LayerRotary | null
}

/** One layer of one sequence. */
export interface LayerCache extends Stateful {
  /** Queries and keys must come unrotated: this cache gives them positions of its own, or looks at them before. */
  readonly rotates?: boolean
  /** What stays depends on how a text is divided into chunks: the policy ranks at their ends. */
  readonly dependsOnChunks?: boolean
  /** Appends and attends. `output` is `[T, H, E]`. All layers of a sequence are fed the same tokens. */
  attend(input: LayerInput, output: Float32Array): void
  /**
   * Attends with other queries of the tokens of the last `attend`, over what its queries saw: for layers that share
   * keys and values. The `shape` of such a cache says `isShared`.
   */
  attendAgain(input: Pick<LayerInput, 'query' | 'numTokens' | 'rotary'>, output: Float32Array): void
  /** Positions that KV head `head` still holds, ascending. */
  positions(head: number): number[]
  info(): CacheInfo
  /** What each head keeps and why, and what left last. */
  explain?(): LayerExplanation
  /** As that of `KvCache`. */
  checkIntegrity?(): void
  reset(): void
  /**
   * Shows `count` tokens from `first` on by themselves; where the visitor reads, they come after `first` others that
   * the cache holds. Only of caches whose rows stay what they are: those that keep everything.
   */
  readonly visitTokens?: ((visitor: StateVisitor, first: number, count: number) => void) | undefined
  /** As those of `KvCache`. */
  readonly shareTokens?: ((first: number, count: number) => SharedRows | undefined) | undefined
  adoptTokens?(rows: SharedRows): boolean
  reserve?(length: number): void
  roomFor?(numTokens: number, room: Room): void
  /** Forgets the tokens from position `length` on; only where all of those before are still held. */
  truncate?(length: number): void
  /** A copy that goes its own way. */
  fork(): LayerCache
  dispose(): void
}

/** What one layer keeps. */
export interface LayerExplanation {
  /** `[K]` */
  readonly heads: readonly HeadExplanation[]
  /** The last evictions, oldest first; how many are remembered is `evictionLog`. */
  readonly evicted: readonly Eviction[]
  /** With `recall`: what came back so far. */
  readonly recall?: RecallCounts
}

export interface HeadExplanation {
  /** Ascending. */
  readonly positions: readonly number[]
  /** What the policy thinks of each; null: not ranked yet, or by age alone. */
  readonly scores: readonly (number | null)[]
}

/** A token that left a head. */
export interface Eviction {
  readonly head: number
  readonly position: number
  readonly score: number | null
  /** Tokens that the cache had seen when it left. */
  readonly seenTokens: number
}

/** Where a cache stands. Bytes are those of K and V (and of the bias), as allocated, and of tokens that may come back. */
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
  /** What each layer keeps and why; absent for caches that live elsewhere. */
  explain?(): readonly LayerExplanation[]
  /**
   * Recounts whatever several sequences share.
   * @throws KvasirError `internal` when a count is wrong
   */
  checkIntegrity?(): void
  /** The ids of all tokens seen, where whoever feeds the layers has told them all (models do). */
  readonly tokens?: ArrayLike<number> | undefined
  /** Tells the ids of tokens that all layers have just been fed. */
  noteTokens?(tokens: ArrayLike<number>): void
  /** What it was made with; absent for caches that live elsewhere, as are the next two. */
  readonly options?: CacheOptions
  visitState?(visitor: StateVisitor): void
  /** The same state in pieces, each of which can be written and read by itself. */
  stateParts?(): Iterable<Stateful>
  /** Whether that of some layer does. */
  readonly dependsOnChunks?: boolean
  /** As that of `LayerCache`, of all layers. */
  readonly visitTokens?: ((visitor: StateVisitor, first: number, count: number) => void) | undefined
  /**
   * The rows of `count` tokens from `first` on, held together with this cache, whatever becomes of it: only of caches
   * whose `visitTokens` is there and whose rows lie in pages of a pool. Undefined where pages don't end where they do.
   */
  readonly shareTokens?: ((first: number, count: number) => SharedRows | undefined) | undefined
  /** Takes such rows over after the tokens that the cache holds; false, and nothing has changed, where they don't fit. */
  adoptTokens?(rows: SharedRows): boolean
  /**
   * Makes room for `length` tokens at once, rather than bit by bit as they come.
   * @throws KvasirError `out-of-memory`; nothing has changed then
   */
  reserve?(length: number): void
  /** Says what the next tokens take in all layers: for `holdRoom`. */
  roomFor?(numTokens: number, room: Room): void
  /** Forgets the tokens from position `length` on; absent for caches that can't bring back what they evicted. */
  readonly truncate?: ((length: number) => void) | undefined
  reset(): void
  fork(): KvCache
  dispose(): void
}

/** Rows of some tokens that others may hold too; who writes to them gets a copy. */
export interface SharedRows {
  /** Of K and V (and of the bias). */
  readonly bytes: number
  /** To be called once. */
  free(): void
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

/** Pages that several sequences of one model share. Freed when the last cache over it is disposed. */
export interface KvPool {
  /** Bytes of pages that some sequence holds; a page that several hold counts once. */
  readonly usedBytes: number
  /** Bytes there may be; Infinity: as many as memory holds. */
  readonly maxBytes: number
  readonly pageSize: number
  /** @throws KvasirError `internal` when a page's count is wrong */
  checkIntegrity(): void
}
