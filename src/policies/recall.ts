/** The options of recall: what a cache that brings evicted tokens back keeps them in, and how many pages it remembers. */
import type { CacheOptions, CacheShape, LayerShape } from '../cache/contract.ts'
import type { ArchiveOptions } from '../cache/hierarchical/page-archive.ts'
import { bytesOfBound } from '../cache/hierarchical/page-bounds.ts'
import { pageTokens } from '../cache/hierarchical/page-bytes.ts'
import { bytesOfRow, rowTypesOf } from '../cache/storage/row-types.ts'
import { MemoryTier } from '../cache/tiers/memory-tier.ts'
import { TieredStore } from '../cache/tiers/tiered-store.ts'
import { checkInteger, describe } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import type { ChosenPolicy } from './choice.ts'
import { cacheDefaults } from './defaults.ts'

/** In a store of tiers where the user does not say: as many as the tier on disk holds where nobody says. */
const storeBytes = 2 ** 30

export interface RecallPlan {
  /** Pages of each layer that are remembered. */
  readonly maxPages: number
  /** Bytes of RAM that all layers take for them. */
  readonly bytes: number
}

/** The layers whose evicted tokens come back: the others never look further back than their own window. */
function recalling(shape: CacheShape): LayerShape[] {
  return shape.layers.filter(({ window }) => window === undefined)
}

/** Undefined: nothing comes back. Of a budget, half goes to what comes back where `recallBytes` does not say. */
export function planRecall(shape: CacheShape, options: CacheOptions): RecallPlan | undefined {
  const { recall, recallBytes, recallStore, kvBudget = Number.POSITIVE_INFINITY } = options
  if (recall === undefined) return undefined
  const types = rowTypesOf(options)
  const sum = (bytesOf: (layer: LayerShape) => number): number =>
    recalling(shape).reduce((total, layer) => total + layer.numKvHeads * bytesOf(layer), 0)
  const rows = sum((layer) => pageTokens * bytesOfRow({ ...layer, ...types }))
  const bounds = sum(({ headDim }) => bytesOfBound(headDim))
  // The pages that came back last, and the one that is not full yet.
  const fixed = (recall + 1) * rows
  const ramBytes = recallStore?.ramBytes ?? Number.POSITIVE_INFINITY
  const bytesOf = (pages: number): number => fixed + pages * bounds + Math.min(pages * rows, ramBytes)
  const usual = recallStore ? storeBytes : cacheDefaults.recallBytes
  if (recallBytes !== undefined && recallBytes < rows + bounds) {
    const least = `expected recallBytes of at least ${rows + bounds}, what a page of ${pageTokens} tokens takes`
    throw invalidArgument('cache', `${least}, got ${recallBytes}`)
  }
  const room = Math.floor((recallBytes ?? usual) / Math.max(1, rows + bounds))
  const maxPages = Math.max(1, recallBytes === undefined ? mostPages(bytesOf, kvBudget / 2, room) : room)
  return { maxPages, bytes: bytesOf(maxPages) }
}

/** The most pages, up to `most`, whose bytes are within `budget`. */
function mostPages(bytesOf: (pages: number) => number, budget: number, most: number): number {
  let [low, high] = [0, most]
  while (low < high) {
    const middle = Math.ceil((low + high) / 2)
    if (bytesOf(middle) <= budget) low = middle
    else high = middle - 1
  }
  return low
}

/** One store for all layers of a cache, since they share the bytes; undefined: nothing comes back. */
export function recallOf(shape: CacheShape, options: CacheOptions): ArchiveOptions | undefined {
  const { recall, recallStore } = options
  const plan = planRecall(shape, options)
  if (!plan || recall === undefined) return undefined
  // The entries of a tier are somewhat larger than the rows in them: the number of pages is what limits.
  const store = recallStore ?? new TieredStore([new MemoryTier({ maxBytes: 2 * plan.bytes })])
  const ramBytes = recallStore ? recallStore.ramBytes / Math.max(1, recalling(shape).length) : Number.POSITIVE_INFINITY
  return { store, recall, maxPages: plan.maxPages, ramBytes }
}

/** @throws KvasirError `invalid-argument` naming the option */
export function checkRecall(options: CacheOptions, { entry }: ChosenPolicy): void {
  const { recall, recallBytes, recallStore, positions, policy } = options
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
  if (positions === 'rank') {
    const why = 'by rank an evicted token has no position, since the others stand as though it had never been'
    throw invalidArgument('cache', `expected original positions with recall, got "rank": ${why}`)
  }
  if (entry.retention) return
  const why = `"${policy}" evicts nothing that could come back`
  throw invalidArgument('cache', `expected a policy that evicts tokens for recall: ${why}`)
}
