/** What a bounded layer consists of. */
import type { Kernels, Memory } from '../../kernels/index.ts'
import type { ScoreTokens } from '../contract.ts'
import { type ArchiveOptions, PageArchive } from '../hierarchical/page-archive.ts'
import { createStore, type LayerConfig } from '../layout.ts'
import { PositionAxis } from '../position-axis.ts'
import type { RowStore } from '../storage/row-store.ts'
import { KeptHistory } from './history.ts'
import { KeptState } from './state.ts'

/** What ranks tokens: the model's importance, a score, or nothing, so that the newer wins every tie. */
export type RankBy = 'importance' | 'recency' | ScoreTokens

export interface KeptConfig extends LayerConfig {
  readonly kernels: Kernels
  /** W */
  readonly window: number
  readonly sinks: number
  readonly recent: number
  readonly rankBy: RankBy
  /** Number of the layer, for scores that depend on it (default 0). */
  readonly layer?: number
  /** Evicted tokens come back by page; not for layers that rotate. */
  readonly archive?: ArchiveOptions
}

export interface KeptParts {
  readonly store: RowStore
  readonly state: KeptState
  /** `[K, W]`, where importance is added to the logits. */
  readonly bias: Memory | undefined
  /** Where the cache rotates. */
  readonly axis: PositionAxis | undefined
  /** Where somebody asks what left. */
  readonly history: KeptHistory | undefined
  readonly archive: PageArchive | undefined
}

/** @param given those of a fork */
export function createParts(
  config: KeptConfig,
  usesBias: boolean,
  given: Partial<Pick<KeptParts, 'store' | 'archive'>> = {},
): KeptParts {
  const { kernels, shape, window, sinks, rankBy, rotates, isRanked = false, evictionLog = 0 } = config
  const K = shape.numKvHeads
  const archive = given.archive ?? (config.archive && new PageArchive(config, usesBias, config.archive))
  const isWatched = isRanked || evictionLog > 0 || archive !== undefined
  const axis = rotates ? new PositionAxis(K, window, isRanked, window) : undefined
  return {
    store: given.store ?? createStore(config, window),
    // By age nothing competes: a ring finds the oldest without a heap.
    state: new KeptState(rankBy === 'recency' ? { ...config, recent: window - sinks } : config),
    bias: usesBias ? kernels.alloc(K * window * 4) : undefined,
    axis,
    history: isWatched ? new KeptHistory(evictionLog, { axis, archive }) : undefined,
    archive,
  }
}

/** Of another layer of the same configuration; rows and archive come with `given`. */
export function copyParts(from: KeptParts, to: KeptParts): void {
  to.state.copyFrom(from.state)
  if (from.bias) to.bias?.f32.set(from.bias.f32)
  if (from.axis) to.axis?.copyFrom(from.axis)
  if (from.history) to.history?.copyFrom(from.history)
}

export function freeParts({ store, state, bias, archive }: KeptParts): void {
  store.free()
  archive?.dispose()
  state.free()
  bias?.free()
}
