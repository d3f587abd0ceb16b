/** What a user chose and what the model suggests, made into the options of a cache. */
import type { CacheOptions, PolicyChoice } from '../cache/contract.ts'
import type { ModelSpec } from '../onnx/index.ts'

export const cacheKeys = ['policy', 'window', 'sinks', 'recent', 'kvDtype'] as const

/**
 * The default policy is `linear` for models with an importance and `full` for others; the default window of the
 * policies that need one is what the model was trained with. Does not check: `createKvCache` does.
 */
export function resolveCacheOptions(spec: ModelSpec, chosen: Partial<CacheOptions>): CacheOptions {
  const policy: PolicyChoice = chosen.policy ?? (spec.hasImportance ? 'linear' : 'full')
  const window = chosen.window ?? (policy === 'full' ? undefined : spec.window)
  return Object.fromEntries(
    Object.entries({ ...chosen, policy, window }).filter(([, value]) => value !== undefined),
  ) as unknown as CacheOptions
}
