/**
 * Options of a cache in a file, and how they go together with those that are asked for when it is read: what is said
 * must agree, what is not said is as it was. How rows lie in memory (`storage`, `pageSize`, `pool`) is free.
 */
import type { CacheOptions } from '../cache/contract.ts'
import { cacheDefaults } from '../policies/index.ts'
import { describe } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'

/** A score of one's own is a function, which a file can't hold. */
const ownScore = 'a function'

export type SavedOptions = Readonly<Record<string, unknown>>

const free = ['storage', 'pageSize', 'pool']
/** Their defaults follow from the policy: the state of each layer tells whether they agree. */
const derived = ['window', 'sinks', 'recent', 'interval', 'leastWindow', 'kvBudget']

export function savedOptions(options: CacheOptions): SavedOptions {
  const entries = Object.entries(options).filter(([name, value]) => name !== 'pool' && value !== undefined)
  return Object.fromEntries(entries.map(([name, value]) => [name, typeof value === 'function' ? ownScore : value]))
}

/** For caches that are looked at and never fed: the score of one's own is never asked. */
export function explicitOptions(saved: SavedOptions): CacheOptions {
  const options = saved.importance === ownScore ? { ...saved, importance: () => {} } : saved
  return options as unknown as CacheOptions
}

/**
 * The options of a cache that is read from a file.
 * @param asked what the caller, or the load of the model, has said
 * @throws KvasirError `invalid-argument` naming the option that differs
 */
export function agreedOptions(saved: SavedOptions, asked: Partial<CacheOptions>): CacheOptions {
  const said = Object.fromEntries(Object.entries(asked).filter(([, value]) => value !== undefined))
  for (const [name, value] of Object.entries(said)) {
    if (free.includes(name) || (derived.includes(name) && saved[name] === undefined)) continue
    const written = saved[name] ?? cacheDefaults[name as keyof typeof cacheDefaults]
    if (written === (typeof value === 'function' ? ownScore : value)) continue
    throw invalidArgument('runtime', `expected a cache with ${name} ${describe(value)}, got ${describe(written)}`)
  }
  if (saved.importance === ownScore && said.importance === undefined) {
    throw invalidArgument('runtime', 'expected the function that the cache ranks tokens by as option "importance"')
  }
  const { storage, pageSize, ...rest } = saved
  const layout = said.pool || said.storage ? {} : { storage, pageSize }
  return { ...rest, ...layout, ...said } as unknown as CacheOptions
}
