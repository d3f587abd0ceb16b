/**
 * Options of a cache in a file, and how they go together with those that are asked for when it is read: what is said
 * must agree, what is not said is as it was. How rows lie in memory (`storage`, `pageSize`, `pool`) is free.
 */
import type { CacheOptions, ImportanceSource, ScoreTokens } from '../cache/contract.ts'
import { cacheDefaults } from '../policies/index.ts'
import { describe } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'

/** A score of one's own is a function, which a file can't hold. */
const ownScore = 'a function'

export type SavedOptions = Readonly<Record<string, unknown>>

const free = ['storage', 'pageSize', 'pool', 'recallStore']
/** Objects of a process. */
const held = ['pool', 'recallStore']
/** Their defaults follow from others: the state of each layer tells whether they agree. */
const derived = ['window', 'sinks', 'recent', 'interval', 'leastWindow', 'kvBudget', 'kvDtypeK', 'kvDtypeV', 'residual']

export function savedOptions(options: CacheOptions): SavedOptions {
  const entries = Object.entries(options).filter(([name, value]) => !held.includes(name) && value !== undefined)
  return Object.fromEntries(entries.map(([name, value]) => [name, saved(value)]))
}

/** A scorer of a file, as a cache is saved with it. */
interface SavedScorer {
  /** Digest of the file. */
  readonly scorer: string
  readonly recent: number
}

function saved(value: unknown): unknown {
  if (typeof value !== 'function') return value
  const { digest, recent = 0 } = value as ScoreTokens
  return digest === undefined ? ownScore : ({ scorer: digest, recent } satisfies SavedScorer)
}

function isScorer(value: unknown): value is SavedScorer {
  return typeof value === 'object' && value !== null && 'scorer' in value
}

/** For caches that are looked at and never fed: the score of one's own is never asked. */
export function explicitOptions(options: SavedOptions): CacheOptions {
  const { importance } = options
  if (importance !== ownScore && !isScorer(importance)) return options as unknown as CacheOptions
  const recent = isScorer(importance) ? importance.recent : 0
  return { ...options, importance: Object.assign(() => {}, { recent }) } as unknown as CacheOptions
}

/**
 * The options of a cache that is read from a file.
 * @param asked what the caller, or the load of the model, has said
 * @param resolve makes a function of a learned importance
 * @throws KvasirError `invalid-argument` naming the option that differs; those of `resolve`
 */
export function agreedOptions(
  before: SavedOptions,
  asked: Partial<CacheOptions>,
  resolve: (importance: ImportanceSource) => ImportanceSource,
): CacheOptions {
  const learned = isScorer(before.importance) ? { importance: resolve(asked.importance ?? 'learned') } : {}
  const said = Object.fromEntries(Object.entries({ ...asked, ...learned }).filter(([, value]) => value !== undefined))
  for (const [name, value] of Object.entries(said)) {
    if (free.includes(name) || (derived.includes(name) && before[name] === undefined)) continue
    const written = before[name] ?? cacheDefaults[name as keyof typeof cacheDefaults]
    if (isSame(written, saved(value))) continue
    throw invalidArgument('runtime', `expected a cache with ${name} ${tell(saved(value))}, got ${tell(written)}`)
  }
  if (before.importance === ownScore && said.importance === undefined) {
    throw invalidArgument('runtime', 'expected the function that the cache ranks tokens by as option "importance"')
  }
  const { storage, pageSize, ...rest } = before
  const layout = said.pool || said.storage ? {} : { storage, pageSize }
  return { ...rest, ...layout, ...said } as unknown as CacheOptions
}

function isSame(one: unknown, other: unknown): boolean {
  return one === other || (isScorer(one) && isScorer(other) && one.scorer === other.scorer)
}

function tell(value: unknown): string {
  if (value === undefined) return 'none'
  return isScorer(value) ? `of the scorer ${value.scorer}` : describe(value)
}
