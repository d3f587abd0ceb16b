/** What the rows and states of a cache depend on besides its tokens, as a text to be hashed. */
import type { KvCache } from '../contract.ts'

/** Raised when what is kept under a key means something else than before. */
const formatVersion = 1

/** Where rows lie makes no difference to what they are; with a budget, pages make one to how many there are. */
const places = ['pool', 'storage', 'pageSize', 'recallStore']

export interface Sharers {
  /** What makes the model this one and no other. */
  readonly fingerprint: string
  /** Who shares: nobody finds what was kept with another salt. */
  readonly salt: string
  readonly chunkSize: number
}

/** Undefined where that can't be said: caches that live elsewhere, scores that are functions. */
export function settingsOf({ options, visitTokens, dependsOnChunks }: KvCache, sharers: Sharers): string | undefined {
  if (!options) return undefined
  const left = options.kvBudget === undefined ? places : ['pool', 'recallStore']
  const named = Object.entries(options).filter(([name, value]) => value !== undefined && !left.includes(name))
  if (named.some(([, value]) => typeof value === 'function')) return undefined
  const kind = visitTokens ? 'tokens' : 'state'
  const { fingerprint, salt, chunkSize } = sharers
  return JSON.stringify([
    formatVersion,
    kind,
    fingerprint,
    salt,
    dependsOnChunks ? chunkSize : 0,
    named.sort(([a], [b]) => (a < b ? -1 : 1)),
  ])
}
