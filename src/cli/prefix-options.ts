/** `--prefix-cache` and `--kv-tier`, which `--recall` uses too, as several commands take them. */
import { InvalidArgumentError, Option } from 'commander'
import type { TierOptions } from '../cache/index.ts'
import { readTier } from '../cache/index.ts'
import type { LoadOptions } from '../runtime/contract.ts'
import { isKvasirError, KvasirError } from '../tensor/error.ts'

export interface PrefixFlags {
  readonly prefixCache?: boolean
  readonly kvTier?: readonly TierOptions[]
  /** Pages of evicted tokens that come back. */
  readonly recall?: number
}

export const prefixOptions = (): Option[] => [
  new Option('--prefix-cache', 'keep what prompts that begin alike have in common'),
  new Option(
    '--kv-tier <tier>',
    'where prefixes and evicted tokens go: ram:BYTES, disk:PATH:BYTES or redis://HOST:PORT; may be repeated',
  ).argParser(tier),
]

function tier(text: string, before: readonly TierOptions[] = []): TierOptions[] {
  try {
    const added = readTier(text)
    if (!before.some(({ kind }) => kind === added.kind)) return [...before, added]
    throw new InvalidArgumentError(`Expected one tier of each kind, got ${added.kind} twice.`)
  } catch (error) {
    if (!isKvasirError(error)) throw error
    throw new InvalidArgumentError('Expected ram:BYTES, disk:PATH:BYTES (or disk:PATH), or redis://HOST:PORT.')
  }
}

/** Tiers that are named are all there are; without, there is RAM. */
export function toPrefixCache({ prefixCache, kvTier, recall }: PrefixFlags): LoadOptions['prefixCache'] {
  if (!prefixCache && recall === undefined && kvTier) {
    throw new KvasirError(
      'invalid-argument',
      'cli',
      'expected --prefix-cache or --recall with --kv-tier: what should be kept there?',
    )
  }
  if (!prefixCache) return undefined
  if (!kvTier) return {}
  const find = <K extends TierOptions['kind']>(kind: K) =>
    kvTier.find((entry): entry is Extract<TierOptions, { kind: K }> => entry.kind === kind)
  const [ram, disk, redis] = [find('ram'), find('disk'), find('redis')]
  return {
    ram: ram?.maxBytes ?? 0,
    ...(disk && { disk: withoutKind(disk) }),
    ...(redis && { redis: withoutKind(redis) }),
  }
}

/** Without tiers evicted tokens stay in RAM. */
export function toRecallTiers({ kvTier, recall }: PrefixFlags): LoadOptions['recallTiers'] {
  return recall === undefined ? undefined : kvTier
}

function withoutKind<T extends TierOptions>({ kind: _, ...rest }: T): Omit<T, 'kind'> {
  return rest
}
