/** What `kvasir bench cache` measures and reports. Letters as in ARCHITECTURE.md; S is the tokens that came so far. */
import type { CacheOptions, PolicyChoice } from '../../src/cache/contract.ts'
import type { Machine } from '../machine.ts'
import type { Spread } from '../measure.ts'

/** What K and V are stored as. */
export type CacheType = NonNullable<CacheOptions['kvDtype']>

/** The layer whose decode steps are timed. */
export interface LayerSizes {
  /** H */
  readonly heads: number
  /** K */
  readonly kvHeads: number
  /** D, of keys and values */
  readonly headDim: number
  /** W of the policies that have one */
  readonly window: number
  readonly threads: number
}

export interface CacheCase extends LayerSizes {
  readonly policy: PolicyChoice
  readonly kvDtype: CacheType
  /** Pages that come back, of policies that evict. */
  readonly recall?: number | undefined
}

/** The same stretch of steps, once a round: each figure is of one round. */
export interface Steps {
  /** A step: attention over what is kept, and the update. */
  readonly meanMs: number
  readonly medianMs: number
  /** The slowest step, in which rows are ranked where scores change. */
  readonly worstMs: number
  /** Of all steps: what is not the attention of the query: taking the token in, scores, rankings, evictions. */
  readonly updateShare: number
  /** Of a typical step. */
  readonly updateMs: number
}

/** After S tokens. */
export interface LengthResult {
  readonly tokens: number
  readonly meanMs: Spread
  readonly medianMs: Spread
  readonly worstMs: Spread
  /** Mean update over mean step, and that of the medians. */
  readonly updateShare: Spread
  readonly typicalUpdateShare: Spread
  /** What the layer holds, and what one that keeps all S tokens in f32 would. */
  readonly bytes: number
  readonly fullF32Bytes: number
  /** A step beside one without recall, in turns: the median of the ratios of blocks. Null where nothing comes back. */
  readonly recallRatio: number | null
}

/** A step after many tokens beside one after W, in turns. */
export interface Flatness {
  readonly fromTokens: number
  readonly toTokens: number
  /** Median of the ratios of blocks of steps. */
  readonly ratio: number
}

export interface CaseReport {
  readonly policy: PolicyChoice
  readonly kvDtype: CacheType
  /** What ran: `native (avx512, 2 threads)` */
  readonly description: string
  readonly lengths: readonly LengthResult[]
  /** Null for caches that grow, and where no length is above W. */
  readonly flatness: Flatness | null
  readonly skipped: readonly { readonly tokens: number; readonly skipped: string }[]
}

export interface CacheReport extends LayerSizes {
  readonly machine: Machine
  readonly versions: Readonly<Record<string, string>>
  /** Rounds. */
  readonly repeat: number
  /** Steps of a round at most. */
  readonly steps: number
  readonly cases: readonly CaseReport[]
}
