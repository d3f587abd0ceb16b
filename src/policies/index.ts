/**
 * Retention: which tokens stay. One entry a policy; adding one is adding a line here.
 *
 * | policy | stays | memory |
 * |---|---|---|
 * | full | everything; with a window, a query sees the W most important of it | grows |
 * | window | the first `sinks` and the newest | W rows a head |
 * | linear | the first `sinks`, the last `recent` and the most important of the rest | W rows a head |
 */
import { BoundedCache } from '../cache/bounded-cache.ts'
import type { CacheOptions, CacheShape, KvCache, LayerCache, PolicyName } from '../cache/contract.ts'
import { FullCache } from '../cache/full-cache.ts'
import type { LayerConfig } from '../cache/layout.ts'
import { SequenceCache } from '../cache/sequence-cache.ts'
import type { Kernels } from '../kernels/index.ts'
import { checkChoice, checkInteger, checkKeys } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'

/** What a policy makes of one layer. `window` is checked; it is absent where the policy doesn't need it. */
interface PolicyEntry {
  /** W must be given. */
  readonly needsWindow: boolean
  /** The model must provide an importance for each token. */
  readonly needsImportance: (options: CacheOptions) => boolean
  readonly createLayer: (config: LayerConfig, options: CacheOptions, hasImportance: boolean) => LayerCache
}

export const policies = {
  full: {
    needsWindow: false,
    needsImportance: ({ window }) => window !== undefined,
    createLayer: (config, { window }, hasImportance) => new FullCache({ ...config, window }, hasImportance),
  },
  window: {
    needsWindow: true,
    needsImportance: () => false,
    createLayer: (config, options, hasImportance) => bounded(config, options, 'recency', hasImportance),
  },
  linear: {
    needsWindow: true,
    needsImportance: () => true,
    createLayer: (config, options, hasImportance) => bounded(config, options, 'importance', hasImportance),
  },
} as const satisfies Record<PolicyName, PolicyEntry>

export const policyNames = Object.keys(policies) as PolicyName[]

function bounded(
  config: LayerConfig,
  options: CacheOptions,
  rankBy: 'importance' | 'recency',
  hasImportance: boolean,
): BoundedCache {
  const { window: chosen, sinks = 0, recent = 0 } = options
  const window = chosen as number
  const own = config.shape.window
  // A layer that never looks further back than the policy needs no more than its own window.
  if (own !== undefined && own <= window) {
    return new BoundedCache({ ...config, window: own, sinks: 0, recent: 0, rankBy: 'recency' }, hasImportance)
  }
  return new BoundedCache({ ...config, window, sinks, recent, rankBy }, hasImportance)
}

/** Most rows a head: row numbers are 32-bit and a window beyond this is a mistake. */
const maxWindow = 1 << 24

/**
 * An empty cache for one sequence.
 * @throws KvasirError `invalid-argument`: unknown option or policy, window below 1, sinks + recent above the window,
 * `linear` (or `full` with a window) on a model without importance.
 */
export function createKvCache(kernels: Kernels, shape: CacheShape, options: CacheOptions): KvCache {
  checkCacheOptions(options)
  const policy: PolicyEntry = policies[options.policy]
  if (policy.needsImportance(options) && !shape.hasImportance) {
    throw invalidArgument(
      'cache',
      `policy "${options.policy}" with a window ranks tokens by importance, which this model does not compute`,
    )
  }
  const { hasImportance } = shape
  const kvDtype = options.kvDtype ?? 'f32'
  return new SequenceCache(
    shape.layers.map((layer) => policy.createLayer({ kernels, shape: layer, kvDtype }, options, hasImportance)),
  )
}

/** @throws KvasirError `invalid-argument`, naming the option. */
export function checkCacheOptions(options: CacheOptions): void {
  const { policy, window, sinks = 0, recent = 0, kvDtype = 'f32' } = options
  checkKeys('cache', 'a cache', options, ['policy', 'window', 'sinks', 'recent', 'kvDtype'])
  checkChoice('cache', 'policy', policy, policyNames)
  checkChoice('cache', 'kvDtype', kvDtype, ['f32', 'f16'])
  checkInteger('cache', 'sinks', sinks, 0, maxWindow)
  checkInteger('cache', 'recent', recent, 0, maxWindow)
  if (window !== undefined) checkInteger('cache', 'window', window, 1, maxWindow)
  else if (policies[policy].needsWindow) throw invalidArgument('cache', `policy "${policy}" needs a window`)
  if (!policies[policy].needsWindow) {
    if (sinks || recent) throw invalidArgument('cache', `sinks and recent mean nothing to policy "${policy}"`)
  } else if (sinks + recent > (window as number)) {
    throw invalidArgument('cache', `expected sinks + recent within the window of ${window}, got ${sinks} + ${recent}`)
  }
}
