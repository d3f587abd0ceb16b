/**
 * Retention: which tokens stay, and how many. Names and what they stand for are in table.ts, what bytes buy in
 * budget.ts; here options become caches.
 */
import { BoundedCache } from '../cache/bounded/bounded-cache.ts'
import type { CacheOptions, CacheShape, KvCache, KvPool, LayerCache, LayerShape } from '../cache/contract.ts'
import { FullCache } from '../cache/full-cache.ts'
import type { ArchiveOptions } from '../cache/hierarchical/page-archive.ts'
import type { LayerConfig } from '../cache/layout.ts'
import { RankedCache } from '../cache/ranked/ranked-cache.ts'
import { SequenceCache } from '../cache/sequence-cache.ts'
import { SharedPool } from '../cache/storage/kv-pool.ts'
import { boundedTypes, type RowTypes, residualTypes, rowTypesOf } from '../cache/storage/row-types.ts'
import { checkKernels } from '../kernels/check-kernels.ts'
import type { Kernels } from '../kernels/index.ts'
import { checkKeys, describe } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import { planWindows } from './budget.ts'
import { checkCacheOptions, checkStorage } from './check-options.ts'
import { checkShape } from './check-shape.ts'
import { type ChosenPolicy, readPolicy } from './choice.ts'
import { cacheDefaults } from './defaults.ts'
import { recallOf } from './recall.ts'
import type { Protection } from './table.ts'

export { checkCacheOptions } from './check-options.ts'
export { policyNames, readPolicy } from './choice.ts'
export { cacheDefaults } from './defaults.ts'
export { checkImportanceSource, importanceNames } from './importance.ts'
export { type PresetName, presets } from './presets.ts'

const safeguard = 0.2
const defaultPageSize = 16

/**
 * An empty cache for one sequence.
 * @throws KvasirError `invalid-argument`: unknown option or policy, window below 1, sinks + recent above the window,
 * a budget that nothing fits, `linear` (or `full` with a window) on a model without importance
 */
export function createKvCache(kernels: Kernels, shape: CacheShape, options: CacheOptions): KvCache {
  checkKernels('cache', kernels)
  checkCacheOptions(options)
  checkShape(shape)
  const policy = readPolicy(options.policy)
  checkImportance(policy, shape, options)
  const isPaged = pagesFor(policy, options)
  const pool = isPaged ? poolOf(kernels, options) : undefined
  const plan = planWindows(shape, options, policy, { least: leastRows(policy, options), isPaged })
  const archive = recallOf(shape, options)
  const layers = shape.layers.map((layer, index) => {
    const config = { ...configOf(kernels, layer, options, policy, pool), layer: index, archive }
    const window = plan?.windows[index]
    return createLayer(config, options, policy, window ?? 0, shape.hasImportance)
  })
  return new SequenceCache(layers, options)
}

/**
 * Pages for the caches of several sequences of one kind: give it to each of them as `pool`.
 * @param options `kvBudget`: bytes of all pages; when they are used up, `attend` is refused with `out-of-memory` and
 * the layer is as it was: `holdRoom` makes sure of all layers
 * @throws KvasirError `invalid-argument`, naming the option
 */
export function createKvPool(
  kernels: Kernels,
  options: Pick<CacheOptions, 'kvDtype' | 'kvDtypeK' | 'kvDtypeV' | 'residual' | 'pageSize' | 'kvBudget'> = {},
): KvPool {
  checkKernels('cache', kernels)
  checkKeys('cache', 'a pool', options, ['kvDtype', 'kvDtypeK', 'kvDtypeV', 'residual', 'pageSize', 'kvBudget'])
  checkStorage(options)
  const { pageSize = defaultPageSize, kvBudget = Number.POSITIVE_INFINITY } = options
  return new SharedPool({ kernels, types: rowTypesOf(options), pageSize, maxBytes: kvBudget })
}

/** Heads of different lengths need pages; side by side, all would take what the longest takes. */
function pagesFor({ sharesHeads }: ChosenPolicy, { storage, pool, kvBudget }: CacheOptions): boolean {
  if (storage === 'contiguous' && pool !== undefined) {
    throw invalidArgument('cache', 'expected storage "paged" with a pool, got "contiguous"')
  }
  if (storage === 'contiguous' && sharesHeads && kvBudget !== undefined) {
    throw invalidArgument('cache', 'expected storage "paged" for adakv with a kvBudget, got "contiguous"')
  }
  return (storage ?? (pool !== undefined || sharesHeads ? 'paged' : 'contiguous')) === 'paged'
}

function poolOf(kernels: Kernels, options: CacheOptions): SharedPool {
  const { pool, pageSize = defaultPageSize } = options
  const types = rowTypesOf(options)
  if (pool === undefined) return new SharedPool({ kernels, types, pageSize, maxBytes: Number.POSITIVE_INFINITY })
  if (!(pool instanceof SharedPool))
    throw invalidArgument('cache', `expected a pool of createKvPool, got ${describe(pool)}`)
  if (options.pageSize !== undefined && pageSize !== pool.pageSize) {
    throw invalidArgument('cache', `expected a pageSize of ${pool.pageSize}, as in the pool, got ${pageSize}`)
  }
  for (const [name, own] of Object.entries({ keyType: 'kvDtypeK', valueType: 'kvDtypeV', hadamard: 'int4' } as const)) {
    const [expected, got] = [pool.types[name as keyof RowTypes], types[name as keyof RowTypes]]
    if (expected !== got) throw invalidArgument('cache', `expected ${own} "${expected}", as in the pool, got "${got}"`)
  }
  return pool
}

function configOf(
  kernels: Kernels,
  shape: LayerShape,
  options: CacheOptions,
  { entry }: ChosenPolicy,
  pool: SharedPool | undefined,
): LayerConfig {
  const { positions, evictionLog = cacheDefaults.evictionLog } = options
  // Of what keeps everything, ranks are the original positions.
  const isRanked = positions === 'rank' && entry.retention !== undefined
  const retention = entry.retention?.({ policy: 'full' }, { window: 1, sinks: 0, recent: 0 })
  const looksAtQueries = retention?.kind === 'rescoring' && retention.needs.queries !== undefined
  const types = rowTypesOf(options)
  const { headDim, valueDim } = shape
  const rows = { headDim, valueDim, hasOriginals: isRanked }
  return {
    ...{ kernels, shape, ...types, isRanked, rotates: isRanked || looksAtQueries, evictionLog },
    pool: pool?.poolOf({ ...rows, ...types }),
    residualPool: pool?.poolOf({ ...rows, ...residualTypes(types) }),
  }
}

type Config = LayerConfig & { readonly layer: number; readonly archive: ArchiveOptions | undefined }

function createLayer(
  whole: Config,
  options: CacheOptions,
  policy: ChosenPolicy,
  window: number,
  hasImportance: boolean,
): LayerCache {
  const { entry } = policy
  if (!entry.retention) return new FullCache({ ...whole, window: options.window }, hasImportance)
  const config = { ...whole, ...boundedTypes(whole, window) }
  // A layer that never looks further back than its own window keeps just that, whatever ranks the others.
  if (config.shape.window !== undefined) {
    const own = { window, sinks: 0, recent: 0, archive: undefined }
    return new BoundedCache({ ...config, ...own, rankBy: 'recency' }, hasImportance)
  }
  const protection = protectionOf(policy, options, window)
  const retention = entry.retention(options, protection)
  const { leastWindow, keepMass = cacheDefaults.keepMass } = options
  const dynamic = leastWindow === undefined ? undefined : { least: Math.min(leastWindow, window), keepMass }
  if (retention.kind === 'static' && !policy.sharesHeads && !dynamic) {
    return new BoundedCache({ ...config, ...protection, rankBy: retention.rankBy }, hasImportance)
  }
  const interval = intervalOf(policy, options, protection)
  const share = policy.sharesHeads ? safeguard : undefined
  return new RankedCache({ ...config, ...protection, retention, interval, safeguard: share, dynamic }, hasImportance)
}

/** What the user says, else what the policy has, as far as it fits the window. */
function protectionOf({ entry }: ChosenPolicy, options: CacheOptions, window: number): Protection {
  // What the user asks for goes before what the policy would have.
  const left = options.sinks === undefined ? Math.max(0, window - Math.max(1, options.recent ?? 0)) : window
  const sinks = Math.min(options.sinks ?? entry.sinks, left)
  const own = typeof entry.recent === 'function' ? entry.recent(options) : entry.recent
  const usual = Math.min(own.tokens, Math.floor(own.share * window))
  const recent = Math.min(options.recent ?? usual, window - sinks)
  return { window, sinks, recent }
}

function intervalOf(
  { entry }: ChosenPolicy,
  { interval }: CacheOptions,
  { window, sinks, recent }: Protection,
): number {
  const usual = Math.min(entry.interval.tokens, Math.floor(entry.interval.share * window))
  return Math.max(1, Math.min(interval ?? usual, window - sinks - recent))
}

/** Rows that a budget in bytes must have room for. */
function leastRows({ entry }: ChosenPolicy, { sinks = 0, recent = 0, leastWindow = 1 }: CacheOptions): number {
  return entry.retention ? Math.max(1, sinks + recent, leastWindow) : 1
}

function checkImportance({ name, entry }: ChosenPolicy, shape: CacheShape, options: CacheOptions): void {
  if (shape.hasImportance || !entry.needsImportance(options)) return
  const instead = name === 'linear' ? '; "importance" may be "value-norm", "key-norm" or "learned" instead' : ''
  throw invalidArgument(
    'cache',
    `policy "${name}" with a window ranks tokens by importance, which this model does not compute${instead}`,
  )
}
