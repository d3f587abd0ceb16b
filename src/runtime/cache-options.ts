/** What a user chose and what the model suggests, made into the options of a cache. */
import type { CacheOptions, PolicyChoice } from '../cache/contract.ts'
import type { ModelSpec } from '../onnx/index.ts'

export const cacheKeys = [
  ...(['policy', 'window', 'sinks', 'recent', 'kvDtype', 'kvDtypeK', 'kvDtypeV', 'residual'] as const),
  ...(['kvBudget', 'storage', 'pageSize', 'pool'] as const),
  ...(['positions', 'importance', 'interval', 'leastWindow', 'keepMass', 'seed', 'evictionLog'] as const),
  ...(['recall', 'recallBytes', 'recallStore'] as const),
] as const satisfies (keyof CacheOptions)[]

/**
 * The default policy is `linear` for models with an importance; for others `full`, or `streaming` where something of
 * `full` would make no sense; the default window of the
 * policies that need one is what the model was trained with. Does not check: `createKvCache` does.
 */
export function resolveCacheOptions(spec: ModelSpec, chosen: Partial<CacheOptions>): CacheOptions {
  const policy: PolicyChoice =
    chosen.policy ?? (spec.hasImportance ? 'linear' : isBounded(chosen) ? 'streaming' : 'full')
  const isOwn = policy !== 'full' && chosen.kvBudget === undefined
  const window = chosen.window ?? (isOwn ? spec.window : undefined)
  return Object.fromEntries(
    Object.entries({ ...chosen, policy, window }).filter(([, value]) => value !== undefined),
  ) as unknown as CacheOptions
}

function isBounded({ kvBudget, sinks, recent, positions }: Partial<CacheOptions>): boolean {
  return kvBudget !== undefined || sinks !== undefined || recent !== undefined || positions === 'rank'
}
