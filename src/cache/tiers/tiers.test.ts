import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { TierName, TierOptions } from './contract.ts'
import { MemoryTier } from './memory-tier.ts'
import { openTiers, readTier } from './open-tiers.ts'
import { blobOf, bodyOf } from './testing/blobs.ts'
import { type RedisServer, redisProgram, startRedis, withoutRedis } from './testing/redis-server.ts'
import { TieredStore } from './tiered-store.ts'

let folder = ''
let server: RedisServer | undefined
let folders = 0
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kvasir-tiers-'))
  if (redisProgram) server = await startRedis()
  else console.warn(`tests of the Redis tier are skipped: ${withoutRedis}`)
})
afterAll(async () => {
  await server?.stop()
  await rm(folder, { recursive: true })
})

/** A fresh tier with room for about `maxBytes`; generous times, since machines may be busy. */
function options(kind: TierName, maxBytes = 1 << 20): TierOptions {
  if (kind === 'ram') return { kind, maxBytes }
  if (kind === 'disk') return { kind, path: join(folder, `${++folders}`), maxBytes }
  return { kind, url: server?.url ?? '', prefix: `test${++folders}:`, timeoutMs: 20_000 }
}

const kinds: readonly TierName[] = redisProgram ? ['ram', 'disk', 'redis'] : ['ram', 'disk']
const combinations: readonly (readonly TierName[])[] = [...kinds.map((kind) => [kind]), ['ram', 'disk'], kinds]

describe.each(combinations.map((names) => [names.join(' -> '), names] as const))('%s', (_, names) => {
  it('gives back what was put, and only that', async () => {
    const store = await openTiers(names.map((name) => options(name)))
    expect(await store.get(['a'])).toEqual([undefined])
    store.put([blobOf('a', 5), blobOf('b', 100_000), blobOf('empty', 0)])
    const read = await store.get(['b', 'nothing', 'a', 'empty'])
    expect(read.map((body) => body && [...body])).toEqual([
      [...bodyOf('b', 100_000)],
      undefined,
      [...bodyOf('a', 5)],
      [],
    ])
    expect(await store.flush()).toEqual([])
    expect(await store.has(['a', 'nothing', 'b'])).toEqual([true, false, true])
    store.put([{ key: 'a', parts: [Uint8Array.of(1), Uint8Array.of(2, 3)] }])
    expect(await store.get(['a'])).toEqual([Uint8Array.of(1, 2, 3)].map((bytes) => expect.objectContaining(bytes)))
    await store.flush()
    await store.delete(['a'])
    expect(await store.get(['a'])).toEqual([undefined])
    expect(await store.has(['a', 'b'])).toEqual([false, true])
    await store.close()
  })
})

describe.each(combinations.map((names) => [names.join(' -> '), names] as const))('%s, visited', (_, names) => {
  it('shows bodies in order, up to the first that is not there or not wanted', async () => {
    const store = await openTiers(names.map((name) => options(name)))
    const keys = Array.from({ length: 40 }, (_, i) => `key-${i}`)
    const lengths = keys.map((_, i) => 1 + i * 700)
    store.put(keys.map((key, i) => blobOf(key, lengths[i])))
    for (const isWritten of [false, true]) {
      if (isWritten) await store.flush()
      const right: boolean[] = []
      const isRight = (body: Uint8Array, n: number) =>
        right.push(Buffer.compare(body, bodyOf(keys[n] as string, lengths[n] as number)) === 0) > 0
      expect(await store.visit([...keys, 'nothing', 'key-0'], isRight)).toBe(40)
      expect(right).toEqual(keys.map(() => true))
      expect(await store.visit(keys, (_body, n) => n < 17)).toBe(17)
      expect(await store.visit(['nothing', ...keys], () => true)).toBe(0)
      expect(await store.visit(keys, () => true, true)).toBe(store.isLasting ? 40 : 0)
    }
    await store.close()
  })
})

describe.each(['ram', 'disk'] as const)('the tier %s', (kind) => {
  it('keeps to its bytes by letting go of what was used longest ago', async () => {
    const store = await openTiers([options(kind, 10 * 8192)])
    const keys = Array.from({ length: 30 }, (_, i) => `k${i}`)
    for (const key of keys) {
      store.put([blobOf(key, 8000)])
      await store.get(['k0'])
      await store.flush()
    }
    const has = await store.has(keys)
    const [stats] = store.stats()
    expect(has[0]).toBe(true)
    expect(has[29]).toBe(true)
    expect(has[2]).toBe(false)
    expect(has.filter(Boolean).length).toBeGreaterThanOrEqual(8)
    expect(stats?.bytes).toBeLessThanOrEqual(10 * 8192)
    expect((stats?.evicted ?? 0) + has.filter(Boolean).length).toBe(30)
    await store.close()
  })

  it('reads without a wait', async () => {
    const store = await openTiers([options(kind)])
    store.put([blobOf('a', 5000)])
    await store.flush()
    expect(store.getNow(['a', 'b']).map((body) => body?.length)).toEqual([5000, undefined])
    await store.close()
  })
})

describe('several tiers', () => {
  it('read what is gone from a faster one out of the next, and put it back', async () => {
    const disk = options('disk')
    const first = await openTiers([{ kind: 'ram', maxBytes: 3000 }, disk])
    first.put([blobOf('a', 2000), blobOf('b', 2000)])
    expect((await first.get(['a']))[0]?.length).toBe(2000)
    const [ram, second] = first.stats()
    expect(ram).toMatchObject({ name: 'ram', entries: 1, evicted: 2 })
    expect(second).toMatchObject({ name: 'disk', hits: 1 })
    expect(first.getNow(['a'])[0]?.length).toBe(2000)
    expect(first.stats()[1]?.hits).toBe(1)
    await first.close()
  })

  it('a wrong entry is a miss, counted and deleted, and the next tier is asked', async () => {
    const [ram, slower] = [new MemoryTier(), new MemoryTier()]
    const store = new TieredStore([ram, slower])
    store.put([blobOf('a'), blobOf('b')])
    const [bytes] = ram.getNow(['a'])
    ram.put([{ key: 'a', bytes: (bytes as Uint8Array).map((byte, i) => (i === 500 ? byte ^ 1 : byte)) }])
    expect((await store.get(['a']))[0]).toEqual(expect.objectContaining(bodyOf('a', 1000)))
    expect(store.stats()[0]).toMatchObject({ corrupt: 1 })
    const [moved] = ram.getNow(['b'])
    for (const tier of [ram, slower]) tier.put([{ key: 'a', bytes: moved as Uint8Array }])
    expect(await store.get(['a'])).toEqual([undefined])
    expect(await slower.has(['a'])).toEqual([false])
  })
})

describe('what opens tiers', () => {
  it.each([
    ['ram:64MiB', { kind: 'ram', maxBytes: 64 * 2 ** 20 }],
    ['disk:/var/tmp/kv', { kind: 'disk', path: '/var/tmp/kv' }],
    ['disk:cache:1GiB', { kind: 'disk', path: 'cache', maxBytes: 2 ** 30 }],
    ['disk:C:\\cache:2GB', { kind: 'disk', path: 'C:\\cache', maxBytes: 2e9 }],
    ['disk:/var/tmp/12', { kind: 'disk', path: '/var/tmp/12' }],
    ['redis://localhost:6379/2', { kind: 'redis', url: 'redis://localhost:6379/2' }],
    ['redis:rediss://h', { kind: 'redis', url: 'rediss://h' }],
  ])('reads %s', (text, expected) => {
    expect(readTier(text)).toEqual(expected)
  })

  it.each(['', 'ram', 'ram:', 'ram:x', 'disk:', 'disc:/tmp', 'redis:', 'redis://', 'redis:localhost'])(
    'refuses %j, saying what would do',
    (text) => {
      expect(() => readTier(text)).toThrow(/expected (a tier as ram:BYTES|redis:\/\/host:port)/)
    },
  )

  it.each([
    [{ kind: 'disc', path: 'x' }, 'did you mean "disk"'],
    [{ kind: 'ram', maxByte: 5 }, 'did you mean "maxBytes"'],
    [{ kind: 'ram', maxBytes: 0 }, 'expected an integer of at least 1 for maxBytes, got 0'],
    [{ kind: 'disk' }, 'expected a text for path'],
    [{ kind: 'redis', url: 'http://x' }, 'expected redis://host:port'],
    [undefined, 'expected one of "ram", "disk", "redis" for the kind of a tier, got undefined'],
  ])('refuses the options %j', async (wrong, message) => {
    await expect(openTiers([wrong as TierOptions])).rejects.toThrow(message)
  })
})
