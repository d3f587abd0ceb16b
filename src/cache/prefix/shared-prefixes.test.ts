/** What is shared at the level of caches: which tokens, of which settings, and what happens to what is wrong. */
import fc from 'fast-check'
import { beforeEach, describe, expect, it } from 'vitest'
import { openKernels } from '../../kernels/index.ts'
import { createKvCache } from '../../policies/index.ts'
import type { CacheOptions, KvCache } from '../contract.ts'
import { encodeState } from '../snapshot/codec.ts'
import { choices, feedTokens, shape } from '../snapshot/testing/layers.ts'
import { MemoryTier } from '../tiers/memory-tier.ts'
import { TieredStore } from '../tiers/tiered-store.ts'
import { KeyChain } from './key-chain.ts'
import { settingsOf } from './settings.ts'
import { type Reading, SharedPrefixes, type SharedPrefixesOptions } from './shared-prefixes.ts'

const kernels = openKernels({ threads: 1 })
const create = (options: CacheOptions): KvCache => createKvCache(kernels, shape, options)
const text = Array.from({ length: 60 }, (_, i) => (i * 37 + 11) % 97)

let tier: MemoryTier
beforeEach(() => {
  tier = new MemoryTier()
})

function open(options: Partial<SharedPrefixesOptions> = {}): SharedPrefixes {
  const store = new TieredStore([tier])
  const sizes = { blockTokens: 4, checkpointTokens: 12, maxTokens: 1000 }
  return new SharedPrefixes({ store, fingerprint: 'model', salt: '', ...sizes, ...options })
}

/** The keys of the text for caches of this kind. */
function keysOf(cache: KvCache): string[] {
  return new KeyChain(settingsOf(cache, { fingerprint: 'model', salt: '', chunkSize: 6 }) as string, 4).keysOf(text)
}

const readingOf = (tokens: readonly number[], salt?: string): Reading => {
  return { textTokens: tokens.length, chunkSize: 6, isWhole: true, salt }
}

/** Takes as much of the beginning of the text as is there. */
function reuse(cache: KvCache, prefixes: SharedPrefixes, salt?: string): Promise<number> {
  return prefixes.reuse(cache, text, readingOf(text, salt))
}

/** Reads `tokens` as a model does: stops where states are kept. Returns how many tokens were there. */
async function read(cache: KvCache, tokens: readonly number[], prefixes: SharedPrefixes): Promise<number> {
  const reading = readingOf(tokens)
  const reused = await prefixes.reuse(cache, tokens, reading)
  while (cache.seenTokens < tokens.length) {
    const start = cache.seenTokens
    const end = Math.min(start + 6 - (start % 6), prefixes.nextStop(cache, reading), tokens.length)
    feedTokens(cache, tokens.slice(start, end), start)
    await prefixes.keep(cache, reading)
    cache.checkIntegrity?.()
  }
  return reused
}

function bits(cache: KvCache): string {
  return Buffer.from(encodeState({ visitState: (visitor) => cache.visitState?.(visitor) })).toString('hex')
}

describe.each(choices)('%j', (choice) => {
  const keepsAll = choice.policy === 'full'

  it.each(['contiguous', 'paged'] as const)('%s: goes on bit by bit as it would have without', async (storage) => {
    for (const kvDtype of ['f32', 'f16', 'int8', 'int4'] as const) {
      const options: CacheOptions = { ...choice, kvDtype, storage }
      tier = new MemoryTier()
      const first = create(options)
      expect(await read(first, text.slice(0, 37), open())).toBe(0)
      const [again, longer] = [create(options), create(options)]
      expect(await read(again, text.slice(0, 37), open())).toBe(36)
      expect(bits(again)).toBe(bits(first))
      // In the chunks that end where they would have without.
      expect(await read(longer, text, open())).toBe(36)
      const alone = create(options)
      tier = new MemoryTier()
      for (const end of [
        6,
        12,
        18,
        24,
        30,
        36,
        42,
        48,
        54,
        ...(alone.dependsOnChunks || alone.visitTokens ? [] : [56]),
        60,
      ]) {
        feedTokens(alone, text.slice(alone.seenTokens, end), alone.seenTokens)
      }
      expect(Array.from(longer.tokens ?? [])).toEqual(text)
      expect(bits(longer)).toBe(bits(alone))
      expect(longer.explain?.()).toEqual(alone.explain?.())
      for (const cache of [first, again, longer, alone]) cache.dispose()
    }
  })

  it('a text that leaves another one finds what they have in common', async () => {
    await read(create(choice), text, open())
    const cache = create(choice)
    const other = [...text.slice(0, 30), ...text.slice(3, 20)]
    expect(await read(cache, other, open())).toBe(keepsAll ? 28 : 24)
    expect(cache.seenTokens).toBe(other.length)
  })

  it('another salt, model or option never finds it', async () => {
    await read(create(choice), text, open())
    const cache = create(choice)
    expect(await reuse(cache, open())).toBe(cache.dependsOnChunks ? 48 : 56)
    expect(await reuse(create(choice), open({ salt: 'b' }))).toBe(0)
    expect(await reuse(create(choice), open(), 'c')).toBe(0)
    expect(await reuse(create(choice), open({ fingerprint: 'other' }))).toBe(0)
    expect(await reuse(create(choice), open({ maxTokens: 50 }))).toBe(0)
    const others: Partial<CacheOptions>[] = [{ kvDtype: 'f16' }, { evictionLog: 5 }]
    if (!keepsAll) others.push({ window: (choice.window ?? 0) + 1 }, { positions: 'rank' }, { recent: 4 })
    for (const other of others) expect(await reuse(create({ ...choice, ...other }), open())).toBe(0)
  })
})

describe('what is wrong in a tier', () => {
  it.each<CacheOptions>([{ policy: 'full' }, { policy: 'linear', window: 12 }])(
    '%j: blobs of other tokens are refused, and everything is computed',
    async (options) => {
      const first = create(options)
      await read(first, text, open())
      const store = new TieredStore([tier])
      const [body] = await store.get([keysOf(first)[2] as string])
      // Whatever is asked for, the answer is one blob of the first text.
      store.has = async (keys) => keys.map(() => true)
      store.get = async (keys) => keys.map(() => body)
      const cache = create(options)
      const prefixes = open({ store })
      const other = text.map((token) => token + 1)
      expect(await prefixes.reuse(cache, other, readingOf(other))).toBe(0)
      expect(cache.seenTokens).toBe(0)
      expect(prefixes.stats().refused).toBeGreaterThan(0)
      cache.checkIntegrity?.()
    },
  )

  it('a missing block ends what is reused, and the rest is computed and kept', async () => {
    await read(create({ policy: 'full' }), text, open())
    const cache = create({ policy: 'full' })
    await tier.delete([keysOf(cache)[8] as string])
    expect(await read(cache, text, open())).toBe(32)
    expect(await reuse(create({ policy: 'full' }), open())).toBe(56)
  })

  it('caches that hold something, or whose tokens are not known, are left alone', async () => {
    await read(create({ policy: 'full' }), text, open())
    const cache = create({ policy: 'full' })
    feedTokens(cache, [1, 2, 3], 0)
    expect(await reuse(cache, open())).toBe(0)
    const silent = create({ policy: 'full' })
    feedTokens(silent, text.slice(0, 8), 0, false)
    const before = tier.stats().written
    await open().keep(silent, { ...readingOf(text), textTokens: 8 })
    expect(tier.stats().written).toBe(before)
  })
})

describe('the chain of keys', () => {
  it('gives equal texts equal keys, and texts that differ anywhere before other ones', () => {
    const tokens = fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 40 })
    fc.assert(
      fc.property(tokens, tokens, tokens, (start, a, b) => {
        const [left, right] = [
          [...start, ...a],
          [...start, ...b],
        ]
        const reused = new KeyChain('seed', 4)
        reused.keysOf(left)
        const keys = { left: new KeyChain('seed', 4).keysOf(left), right: reused.keysOf(right) }
        expect(keys.right).toEqual(new KeyChain('seed', 4).keysOf(right))
        expect(keys.left.length).toBe(Math.floor(left.length / 4))
        for (const [i, key] of keys.left.entries()) {
          const end = 4 * (i + 1)
          if (end > right.length) break
          expect(key === keys.right[i]).toBe(left.slice(0, end).join() === right.slice(0, end).join())
        }
      }),
    )
    expect(new KeyChain('other', 4).keysOf(text)[0]).not.toBe(new KeyChain('seed', 4).keysOf(text)[0])
  })
})
