/** What a user chooses of a cache: how tokens are stored, which stay, and where their keys stand. */
import type { StorageType } from '../kernels/index.ts'
import type { KvPool } from './contract.ts'
import type { TieredStore } from './tiers/tiered-store.ts'

/** How rows of K and V are stored. */
export type KvDtype = StorageType

/** How a sequence is cached; what a user chooses. Storage, retention and positions are independent of each other. */
export interface CacheOptions {
  /** What stays: one of `policyNames`, or a wrapper around one: `adakv(keydiff)`, `pyramidkv(adakv(h2o))`. */
  readonly policy: PolicyChoice
  /** W: tokens kept for each KV head. With `full`, a query sees the W best of the whole history instead. */
  readonly window?: number
  /** First tokens that always stay (default: as the policy has it). */
  readonly sinks?: number
  /** Last tokens that always stay (default: as the policy has it). */
  readonly recent?: number
  /** Storage of K and V (default f32): with int8, fp8 and int4 each row has a scale of its own. */
  readonly kvDtype?: KvDtype
  /** Storage of K alone (default `kvDtype`), which is the more sensitive of the two. */
  readonly kvDtypeK?: KvDtype
  /** Storage of V alone (default `kvDtype`). */
  readonly kvDtypeV?: KvDtype
  /** The last so many tokens are left in f16 (default 128 with fp8 and int4, up to a quarter of W; else 0). */
  readonly residual?: number
  /** Bytes that K and V of all layers may take: W becomes what fits, or `window` where that is less. */
  readonly kvBudget?: number
  /** `contiguous` (default, but for `adakv`) is for single sequences; `paged` shares memory between heads, forks and sequences. */
  readonly storage?: 'contiguous' | 'paged'
  /** P: rows of a page (default 16). */
  readonly pageSize?: number
  /** Pages shared with other sequences of the same model (`createKvPool`); implies `paged`. */
  readonly pool?: KvPool
  /** Of kept keys: where they stood (default), or their rank among those kept, as though the others had never been. */
  readonly positions?: 'original' | 'rank'
  /** What ranks tokens where the policy is `linear`: the model's importance (default), or a score of K or V. */
  readonly importance?: ImportanceSource
  /** Decoding steps between two rankings where scores change (default: as the policy has it). */
  readonly interval?: number
  /** The window shrinks down to this while what stays still gets `keepMass` of the attention. */
  readonly leastWindow?: number
  /** Share of recent attention that must stay with what is kept (default 0.95). */
  readonly keepMass?: number
  /** Seed of the policy `random` (default 0). */
  readonly seed?: number
  /**
   * Pages of 16 evicted tokens that come back for each token and KV head, those that may matter most to its query. For
   * every policy that evicts, with original positions.
   */
  readonly recall?: number
  /**
   * Bytes that evicted tokens and what is remembered of them may take in RAM, or wherever `recallStore` has them
   * (default 256 MiB, with `recallStore` 1 GiB; at most half of `kvBudget`).
   */
  readonly recallBytes?: number
  /** Where evicted tokens go: tiers of RAM, disk and Redis (`openTiers`). */
  readonly recallStore?: TieredStore
  /** Evictions that each layer remembers for `explain` (default 256). */
  readonly evictionLog?: number
}

/** Policies over single tokens and rows. */
export type BasePolicyName =
  | 'full'
  | 'window'
  | 'streaming'
  | 'linear'
  | 'h2o'
  | 'tova'
  | 'snapkv'
  | 'keydiff'
  | 'lagkv'
  | 'expected-attention'
  | 'random'

/** Policies that share a budget out, over the scores of another (default `snapkv`). */
export type WrapperName = 'adakv' | 'pyramidkv'

export type PolicyName = BasePolicyName | WrapperName
export type PolicyChoice = PolicyName | `${WrapperName}(${string})`

/**
 * The model's own, or the norm of a token's value (higher stays) or key (lower stays), or what the scorer beside the model
 * says (`kvasir train-scorer`).
 */
export type ImportanceName = 'model' | 'value-norm' | 'key-norm' | 'learned'

/** By name, by the path of a scorer's file, or a scorer of one's own. */
export type ImportanceSource = ImportanceName | { readonly scorer: string } | ScoreTokens

/** New tokens of one layer, as a score sees them. */
export interface NewTokens {
  readonly layer: number
  readonly numTokens: number
  readonly numKvHeads: number
  readonly headDim: number
  readonly valueDim: number
  /** `[T, K, D]` */
  readonly key: Float32Array
  /** `[T, K, E]` */
  readonly value: Float32Array
  /** `[T, K]` */
  readonly importance?: Float32Array | undefined
  /** Position of token 0. */
  readonly firstPosition: number
}

/**
 * A score of tokens by themselves, which never changes: writes `scores` `[T, K]`. Higher stays; -Infinity is never kept.
 */
export interface ScoreTokens {
  (tokens: NewTokens, scores: Float32Array): void
  /** Last tokens that stay whatever the score, up to a quarter of W, where the user does not say (default 0). */
  readonly recent?: number
  /** Of the file that the score was read from: what tells it from other scores. */
  readonly digest?: string
}
