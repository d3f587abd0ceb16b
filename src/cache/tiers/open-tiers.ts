/** From options, or the texts of a command line, to a store. */

import { readByteCount } from '../../tensor/byte-count.ts'
import { checkChoice, checkInteger, checkKeys, describe } from '../../tensor/check.ts'
import { invalidArgument } from '../../tensor/error.ts'
import { type BlobTier, type TierOptions, tierNames } from './contract.ts'
import { DiskTier } from './disk-tier.ts'
import { MemoryTier } from './memory-tier.ts'
import { RedisTier } from './redis-tier.ts'
import { TieredStore } from './tiered-store.ts'

const integers = {
  ...{ maxBytes: 1, maxQueuedBytes: 1, ttlSeconds: 1, timeoutMs: 1, leastBytesPerSecond: 1, retryMs: 1, maxRetryMs: 1 },
} as const satisfies Record<string, number>

const known = {
  ram: ['kind', 'maxBytes'],
  disk: ['kind', 'path', 'maxBytes', 'maxQueuedBytes', 'timeoutMs'],
  redis: [
    ...['kind', 'url', 'prefix', 'ttlSeconds', 'timeoutMs', 'leastBytesPerSecond', 'retryMs', 'maxRetryMs'],
    'maxQueuedBytes',
  ],
} as const satisfies Record<TierOptions['kind'], readonly string[]>

/**
 * Opens tiers, fastest first.
 * @throws KvasirError `invalid-argument` naming an option; `invalid-file`, `denied` or `unreachable` for a folder that
 * can't be used. A server that is not there is no error: its tier misses.
 */
export async function openTiers(tiers: readonly TierOptions[]): Promise<TieredStore> {
  checkTiers(tiers)
  const opened: BlobTier[] = []
  try {
    for (const options of tiers) opened.push(await openTier(options))
  } catch (error) {
    for (const tier of opened) await tier.close()
    throw error
  }
  return new TieredStore(opened)
}

async function openTier(options: TierOptions): Promise<BlobTier> {
  if (options.kind === 'ram') return new MemoryTier(options)
  return options.kind === 'disk' ? await DiskTier.open(options) : await RedisTier.open(options)
}

/** @throws KvasirError `invalid-argument` */
function checkTiers(tiers: readonly TierOptions[]): void {
  if (!Array.isArray(tiers)) throw invalidArgument('cache', `expected an array of tiers, got ${describe(tiers)}`)
  for (const options of tiers as readonly TierOptions[]) {
    checkChoice('cache', 'the kind of a tier', options?.kind, tierNames)
    checkKeys('cache', `the tier ${options.kind}`, options, known[options.kind])
    for (const [name, value] of Object.entries(options)) {
      if (name in integers && value !== undefined) checkInteger('cache', name, value, 1)
    }
    if (options.kind === 'disk') checkText('path', options.path)
    if (options.kind === 'redis') checkUrl(options.url)
  }
}

function checkText(name: string, value: unknown): void {
  if (typeof value === 'string' && value !== '') return
  throw invalidArgument('cache', `expected a text for ${name}, got ${describe(value)}`)
}

/** Says nothing of what came: it may hold a password. */
function checkUrl(url: unknown): void {
  if (typeof url === 'string' && /^(rediss?:\/\/.|unix:\/\/\/.)/.test(url) && URL.canParse(url)) return
  throw invalidArgument('cache', 'expected redis://host:port, rediss://host:port or unix:///path for a tier in Redis')
}

/**
 * `ram:64MiB`, `disk:PATH` or `disk:PATH:1GiB`, `redis://host:port` (or `redis:` and any URL that the tier takes).
 * @throws KvasirError `invalid-argument`
 */
export function readTier(text: string): TierOptions {
  const [, kind = '', rest = ''] = /^(\w+):(.*)$/s.exec(text) ?? []
  if (kind === 'redis' || kind === 'rediss' || kind === 'unix') {
    const url = /^redis:(rediss?|unix):/.test(text) ? rest : text
    checkUrl(url)
    return { kind: 'redis', url }
  }
  const bytes = readByteCount(/[^:/\\]*$/.exec(rest)?.[0] ?? '')
  if (kind === 'ram' && bytes !== undefined) return { kind, maxBytes: bytes }
  if (kind === 'disk' && rest !== '') {
    const path = bytes === undefined ? rest : rest.replace(/:[^:]*$/, '')
    if (path !== '') return { kind, path, ...(bytes !== undefined && path !== rest && { maxBytes: bytes }) }
  }
  const forms = 'ram:BYTES, disk:PATH:BYTES (or disk:PATH), or redis://HOST:PORT'
  throw invalidArgument(
    'cache',
    `expected a tier as ${forms}, got ${kind === '' ? describe(text) : describe(`${kind}:...`)}`,
  )
}
