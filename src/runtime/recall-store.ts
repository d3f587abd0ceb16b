/** Where tokens that may come back are kept, from options that are data: opened where the model is. */
import type { TierOptions } from '../cache/tiers/contract.ts'
import { openTiers } from '../cache/tiers/open-tiers.ts'
import type { TieredStore } from '../cache/tiers/tiered-store.ts'
import { invalidArgument } from '../tensor/error.ts'
import type { LoadOptions } from './contract.ts'

/** In front of tiers that can't be read at once: what a server has found is read from there. */
const frontBytes = 64 * 2 ** 20

/**
 * Undefined without `recallTiers`.
 * @throws KvasirError `invalid-argument` without `recall` or beside `recallStore`; and what `openTiers` throws
 */
export async function openRecallStore(options: LoadOptions): Promise<TieredStore | undefined> {
  const { recallTiers, recallStore, recall } = options
  if (recallTiers === undefined) return undefined
  if (recall === undefined) {
    throw invalidArgument('runtime', 'recallTiers is for tokens that come back: give recall, a number of pages')
  }
  if (recallStore !== undefined) throw invalidArgument('runtime', 'expected recallTiers or recallStore, got both')
  const needsFront = Array.isArray(recallTiers) && recallTiers.every(({ kind }) => kind === 'redis')
  const front: TierOptions[] = needsFront ? [{ kind: 'ram', maxBytes: frontBytes }] : []
  return await openTiers(needsFront ? [...front, ...recallTiers] : recallTiers)
}
