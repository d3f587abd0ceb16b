/** Options of shared prefixes, as `loadModel` takes them. */
import { readByteCount } from '../../tensor/byte-count.ts'
import { checkInteger, checkKeys, describe } from '../../tensor/check.ts'
import { invalidArgument } from '../../tensor/error.ts'
import type { DiskOptions, RedisOptions, TierOptions } from '../tiers/contract.ts'
import { openTiers, readTier } from '../tiers/open-tiers.ts'
import { SharedPrefixes } from './shared-prefixes.ts'

export interface PrefixCacheOptions {
  /** Bytes in RAM, as a number or as in `64MiB` (default 256 MiB); 0: none. */
  readonly ram?: number | string
  /** A folder, or as in `PATH:4GiB`. */
  readonly disk?: string | DiskOptions
  /** `redis://host:port`. */
  readonly redis?: string | RedisOptions
  /** Who shares: what was kept with another salt is never found (default ''). */
  readonly salt?: string
  /** Tokens of a block, of which whole ones are shared (default 64). */
  readonly blockTokens?: number
  /** For caches that forget: tokens between two states that are kept (default 1024; a multiple of `blockTokens`). */
  readonly checkpointTokens?: number
}

export interface PrefixFacts {
  readonly fingerprint: string
  readonly maxTokens: number
}

/**
 * Opens the tiers.
 * @throws KvasirError `invalid-argument` naming an option, and what `openTiers` throws
 */
export async function openSharedPrefixes(
  options: PrefixCacheOptions,
  { fingerprint, maxTokens }: PrefixFacts,
): Promise<SharedPrefixes> {
  const {
    salt = '',
    blockTokens = 64,
    checkpointTokens = Math.max(1, Math.round(1024 / blockTokens)) * blockTokens,
  } = options
  const tiers = tiersOf(options)
  checkInteger('cache', 'blockTokens', blockTokens, 1, 1 << 20)
  checkInteger('cache', 'checkpointTokens', checkpointTokens, 1)
  if (checkpointTokens % blockTokens !== 0) {
    const expected = `expected a multiple of blockTokens = ${blockTokens} for checkpointTokens`
    throw invalidArgument('cache', `${expected}, got ${checkpointTokens}`)
  }
  const store = await openTiers(tiers)
  const heldBytes = tiers.find((tier) => tier.kind === 'ram')?.maxBytes ?? 0
  return new SharedPrefixes({ store, heldBytes, salt, fingerprint, maxTokens, blockTokens, checkpointTokens })
}

const keys = ['ram', 'disk', 'redis', 'salt', 'blockTokens', 'checkpointTokens']

function tiersOf(options: PrefixCacheOptions): TierOptions[] {
  if (typeof options !== 'object' || options === null) {
    throw invalidArgument('cache', `expected options for prefixCache, got ${describe(options)}`)
  }
  checkKeys('cache', 'prefixCache', options, keys)
  checkSalt(options.salt)
  const { ram = '256MiB', disk, redis } = options
  const maxBytes = typeof ram === 'string' ? readByteCount(ram) : ram
  if (ram !== 0 && maxBytes === undefined) {
    throw invalidArgument('cache', `expected a number of bytes as in 64MiB for ram, got ${describe(ram)}`)
  }
  return [
    ...(maxBytes === undefined || maxBytes === 0 ? [] : [{ kind: 'ram' as const, maxBytes }]),
    ...(disk === undefined
      ? []
      : [typeof disk === 'string' ? readTier(`disk:${disk}`) : { ...disk, kind: 'disk' as const }]),
    ...(redis === undefined
      ? []
      : [typeof redis === 'string' ? readTier(redis) : { ...redis, kind: 'redis' as const }]),
  ]
}

/** @throws KvasirError `invalid-argument` */
export function checkSalt(salt: unknown): void {
  if (salt === undefined || typeof salt === 'string') return
  throw invalidArgument('cache', `expected a text for salt, got ${describe(salt)}`)
}
