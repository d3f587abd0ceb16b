/** What a cache option is when nobody says, where that does not depend on the policy. */
import type { CacheOptions } from '../cache/contract.ts'
import { usualType } from '../cache/storage/row-types.ts'

export const cacheDefaults = {
  kvDtype: usualType,
  positions: 'original',
  importance: 'model',
  keepMass: 0.95,
  seed: 0,
  evictionLog: 256,
  recallBytes: 256 * 2 ** 20,
} as const satisfies Partial<CacheOptions>
