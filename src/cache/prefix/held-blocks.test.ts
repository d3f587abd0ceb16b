/** Blocks that are kept by reference: nothing is copied, counts are right, and whoever needs pages gets them. */
import { expect, test } from 'vitest'
import { openKernels } from '../../kernels/index.ts'
import { createKvCache, createKvPool } from '../../policies/index.ts'
import type { CacheOptions, KvCache, KvPool } from '../contract.ts'
import { encodeState } from '../snapshot/codec.ts'
import { choices, feedTokens, shape } from '../snapshot/testing/layers.ts'
import { MemoryTier } from '../tiers/memory-tier.ts'
import { TieredStore } from '../tiers/tiered-store.ts'
import { SharedPrefixes } from './shared-prefixes.ts'

const kernels = openKernels({ threads: 1 })
const text = Array.from({ length: 41 }, (_, i) => (i * 37 + 11) % 97)
const pageSize = 4

function open(tier = new MemoryTier(), heldBytes = 1 << 20): SharedPrefixes {
  const sizes = { blockTokens: 8, checkpointTokens: 8, maxTokens: 1000 }
  const store = new TieredStore([tier])
  return new SharedPrefixes({ store, heldBytes, fingerprint: 'model', salt: '', ...sizes })
}

const create = (pool: KvPool, options: Partial<CacheOptions> = {}): KvCache =>
  createKvCache(kernels, shape, { policy: 'full', pool, ...options })

/** Returns how many tokens were there. */
async function read(cache: KvCache, tokens: readonly number[], prefixes: SharedPrefixes): Promise<number> {
  const reading = { textTokens: tokens.length, chunkSize: 10, isWhole: true }
  const reused = await prefixes.reuse(cache, tokens, reading)
  while (cache.seenTokens < tokens.length) {
    const start = cache.seenTokens
    feedTokens(cache, tokens.slice(start, Math.min(start + 10 - (start % 10), tokens.length)), start)
    await prefixes.keep(cache, reading)
  }
  cache.checkIntegrity?.()
  return reused
}

const bits = (cache: KvCache): Buffer =>
  Buffer.from(encodeState({ visitState: (visitor) => cache.visitState?.(visitor) }))

test.each(choices.filter(({ policy }) => policy === 'full'))('%j: pages are shared, not copied', async (choice) => {
  const [pool, tier] = [createKvPool(kernels, { pageSize }), new MemoryTier()]
  const prefixes = open(tier)
  const first = create(pool, choice)
  expect(await read(first, text, prefixes)).toBe(0)
  const before = pool.usedBytes
  const second = create(pool, choice)
  expect(await read(second, text, prefixes)).toBe(40)
  expect(bits(second).equals(bits(first))).toBe(true)
  // One page of each head of two layers, for the last token.
  expect((pool.usedBytes - before) / (pageSize * 4 * (8 + 6))).toBe(4)
  expect(tier.stats()).toMatchObject({ entries: 0, hits: 0 })
  expect(prefixes.stats()).toMatchObject({ hits: 1, misses: 1, reusedTokens: 40, pages: { blocks: 5, evicted: 0 } })
  first.dispose()
  second.dispose()
  expect(pool.usedBytes).toBeGreaterThan(0)
  await prefixes.close()
  expect(pool.usedBytes).toBe(0)
})

test('who writes after what is shared gets a copy; the others see what they saw', async () => {
  const pool = createKvPool(kernels, { pageSize })
  const prefixes = open()
  const first = create(pool)
  await read(first, text, prefixes)
  const before = bits(first)
  const other = create(pool)
  await read(other, [...text.slice(0, 17), 1, 2, 3], prefixes)
  other.truncate?.(14)
  feedTokens(other, [5, 6, 7], 14)
  expect(bits(first).equals(before)).toBe(true)
  const again = create(pool)
  expect(await read(again, text, prefixes)).toBe(40)
  expect(bits(again).equals(before)).toBe(true)
})

test('what was used longest ago goes first: beyond the bytes, and when the pool has no pages left', async () => {
  const rowBytes = 2 * 2 * 4 * (8 + 6)
  const pool = createKvPool(kernels, { pageSize, kvBudget: 96 * rowBytes })
  const prefixes = open(new MemoryTier(), 56 * (rowBytes + 2 * 2 * 4))
  const others = text.map((token) => token + 1)
  for (const tokens of [text, others]) {
    const cache = create(pool)
    await read(cache, tokens, prefixes)
    cache.dispose()
  }
  expect(prefixes.stats().pages).toMatchObject({ blocks: 7, evicted: 3 })
  const cache = create(pool)
  expect(await read(cache, text, prefixes)).toBe(16)
  // Room for 96 rows of each head, of which 44 are the cache's.
  const large = create(pool)
  feedTokens(large, text, 0)
  expect(prefixes.stats().pages.evicted).toBeGreaterThan(6)
  large.checkIntegrity?.()
  expect(() => feedTokens(large, text, 41)).toThrow('the pool is used up')
  expect(prefixes.stats().pages).toMatchObject({ blocks: 0, bytes: 0 })
})

test('another pool, and pages that blocks do not fill, have bytes instead', async () => {
  const prefixes = open()
  await read(create(createKvPool(kernels, { pageSize })), text, prefixes)
  expect(await read(create(createKvPool(kernels, { pageSize })), text, prefixes)).toBe(0)
  const odd = createKvPool(kernels, { pageSize: 16 })
  await read(create(odd), text, prefixes)
  expect(await read(create(odd), text, prefixes)).toBe(40)
  expect(prefixes.stats().pages.blocks).toBe(10)
})
