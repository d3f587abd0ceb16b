/** What a layer consists of whose rows are ranked. */
import { EvictionLog } from '../eviction-log.ts'
import { type ArchiveOptions, PageArchive } from '../hierarchical/page-archive.ts'
import { createStore, type LayerConfig } from '../layout.ts'
import { PositionAxis } from '../position-axis.ts'
import type { Retention } from '../retention.ts'
import type { RowStore } from '../storage/row-store.ts'
import { RankedAttention } from './attention.ts'
import { type RowLimitOptions, RowLimits } from './limits.ts'
import { QueryRecord } from './query-record.ts'
import { RankedRows } from './rows.ts'

export interface RankedConfig extends LayerConfig, RowLimitOptions {
  readonly retention: Retention
  /** Evicted tokens come back by page; not with positions by rank. */
  readonly archive?: ArchiveOptions
}

export interface RankedParts {
  readonly store: RowStore
  readonly rows: RankedRows
  /** Where the cache rotates. */
  readonly axis: PositionAxis | undefined
  readonly attention: RankedAttention
  readonly queries: QueryRecord
  readonly limits: RowLimits
  readonly log: EvictionLog
  readonly archive: PageArchive | undefined
}

/** Queries whose attention decides how large a dynamic window is, where the policy asks for none itself. */
const dynamicQueries = 16

/** @param given those of a fork */
export function createRankedParts(
  config: RankedConfig,
  hasImportance: boolean,
  given: Partial<Pick<RankedParts, 'store' | 'rows' | 'archive'>> = {},
): RankedParts {
  const { kernels, shape, retention, window, rotates = false, isRanked = false, evictionLog = 0, dynamic } = config
  const K = shape.numKvHeads
  const needs = retention.kind === 'rescoring' ? retention.needs : {}
  const latest = typeof needs.mass === 'number' ? needs.mass : dynamic ? dynamicQueries : 0
  // One row more than stays: a step stores its token before it ranks.
  const store = given.store ?? createStore(config, window + 1, true)
  const columns = { bias: hasImportance, mass: needs.mass === 'all' }
  const rows = given.rows ?? new RankedRows(kernels, K, store.capacity, columns)
  const axis = rotates ? new PositionAxis(K, store.capacity, isRanked, window, latest) : undefined
  const attention = new RankedAttention(config, rows, store, axis)
  // Layers that share keys and values have queries of other layers between two tokens; a token that is passed over
  // moves the ranks that earlier queries saw. What comes back for one query is not there when another is weighed.
  const isSteady = !shape.isShared && !(isRanked && hasImportance) && !config.archive
  const sampled = needs.queries ?? 0
  return {
    ...{ store, rows, axis, attention },
    queries: new QueryRecord({ config, store, rows, attention }, { latest, sampled, isSteady }),
    limits: new RowLimits(config, K, retention),
    log: new EvictionLog(evictionLog),
    archive: given.archive ?? (config.archive && new PageArchive(config, hasImportance, config.archive)),
  }
}

/** Of another layer of the same configuration; rows, their store and the archive come with `given`. */
export function copyRankedParts(from: RankedParts, to: RankedParts): void {
  if (from.axis) to.axis?.copyFrom(from.axis)
  to.axis?.resize(to.store.capacity, from.rows.lengths)
  to.queries.copyFrom(from.queries)
  to.log.copyFrom(from.log)
  to.limits.copyFrom(from.limits)
}

export function freeRankedParts({ store, rows, queries, archive }: RankedParts): void {
  store.free()
  rows.free()
  queries.free()
  archive?.dispose()
}
