/** The options of recall: what a cache that brings evicted tokens back keeps them in, and how many pages it remembers. */
import type { CacheOptions, CacheShape } from '../cache/contract.ts'
import type { ArchiveOptions } from '../cache/hierarchical/page-archive.ts'
import { pageTokens } from '../cache/hierarchical/page-bytes.ts'
import { bytesOfRow, rowTypesOf } from '../cache/row-types.ts'
import { MemoryTier } from '../cache/tiers/memory-tier.ts'
import { TieredStore } from '../cache/tiers/tiered-store.ts'
import { checkInteger, describe } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import type { ChosenPolicy } from './choice.ts'
import { cacheDefaults } from './defaults.ts'

/** One for all layers of a cache, since they share the bytes; undefined: nothing comes back. */
export function recallOf(shape: CacheShape, options: CacheOptions): ArchiveOptions | undefined {
  const { recall, recallBytes = cacheDefaults.recallBytes, recallStore } = options
  if (recall === undefined) return undefined
  const types = rowTypesOf(options)
  const layers = shape.layers.filter(({ window }) => window === undefined)
  const bytes = layers.reduce(
    (sum, layer) => sum + layer.numKvHeads * pageTokens * bytesOfRow({ ...layer, ...types }),
    0,
  )
  const maxPages = Math.max(1, Math.floor(recallBytes / Math.max(1, bytes)))
  // The entries of a tier are somewhat larger than the rows in them: the number of pages is what limits.
  const store = recallStore ?? new TieredStore([new MemoryTier({ maxBytes: 2 * recallBytes })])
  return { store, recall, maxPages }
}

/** @throws KvasirError `invalid-argument` naming the option */
export function checkRecall(options: CacheOptions, { sharesHeads, entry }: ChosenPolicy): void {
  const { recall, recallBytes, recallStore, positions, leastWindow, policy } = options
  if (recallBytes !== undefined) checkInteger('cache', 'recallBytes', recallBytes, 1)
  if (recallStore !== undefined && !(recallStore instanceof TieredStore)) {
    throw invalidArgument('cache', `expected a store of openTiers for recallStore, got ${describe(recallStore)}`)
  }
  if (recall === undefined) {
    const [name] = Object.entries({ recallBytes, recallStore }).find(([, value]) => value !== undefined) ?? []
    if (name) throw invalidArgument('cache', `${name} is for tokens that come back: give recall, a number of pages`)
    return
  }
  checkInteger('cache', 'recall', recall, 1, 4096)
  if (positions === 'rank') throw invalidArgument('cache', 'expected original positions with recall, got "rank"')
  const retention = entry.retention?.({ policy: 'full' }, { window: 1, sinks: 0, recent: 0 })
  if (retention?.kind === 'static' && !sharesHeads && leastWindow === undefined) return
  throw invalidArgument('cache', `expected a policy that ranks tokens by themselves for recall, got "${policy}"`)
}
