import type { Socket } from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import { afterEach, describe, expect, it } from 'vitest'
import { Breaker } from './breaker.ts'
import { openTiers } from './open-tiers.ts'
import { type BadServer, startBadServer } from './testing/bad-server.ts'
import { blobOf, bodyOf } from './testing/blobs.ts'
import { type RedisServer, startRedis, withoutRedis } from './testing/redis-server.ts'
import type { TieredStore } from './tiered-store.ts'

const stops: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop()
})

async function redis(args: readonly string[] = [], port?: number): Promise<RedisServer> {
  const server = await startRedis(args, port)
  stops.push(() => server.stop())
  return server
}

async function bad(onConnection: (socket: Socket) => void): Promise<BadServer> {
  const server = await startBadServer(onConnection)
  stops.push(() => server.stop())
  return server
}

/** `timeoutMs` is generous by default: machines may be busy. */
async function connect(url: string, options: { timeoutMs?: number; retryMs?: number; ttlSeconds?: number } = {}) {
  const store = await openTiers([{ kind: 'redis', url, timeoutMs: 10_000, retryMs: 60_000, ...options }])
  stops.push(() => store.close())
  return store
}

const counts = (store: TieredStore) => store.stats()[0]
const isRight = (body: Uint8Array | undefined, key: string) => body && Buffer.compare(body, bodyOf(key, body.length))

describe.skipIf(withoutRedis)('blobs in Redis', () => {
  it('are shared by all who connect, and forgotten after their time', async () => {
    const { url } = await redis()
    const [ours, theirs] = [await connect(url, { ttlSeconds: 1 }), await connect(url)]
    ours.put([blobOf('a', 300_000)])
    expect(await ours.flush()).toEqual([])
    expect(isRight((await theirs.get(['a']))[0], 'a')).toBe(0)
    await wait(1200)
    expect(await theirs.get(['a'])).toEqual([undefined])
  })

  it('that somebody else has changed are misses', async () => {
    const { url } = await redis()
    const store = await connect(url)
    store.put([blobOf('a'), blobOf('b')])
    await store.flush()
    const { Redis } = await import('iovalkey')
    const client = new Redis(url)
    await client.setrange('kvasir:a', 400, 'somebody else')
    await client.lpush('kvasir:list', 'not a string')
    await client.quit()
    expect((await store.get(['a', 'list', 'b'])).map((body) => body?.length)).toEqual([undefined, undefined, 1000])
    expect(counts(store)).toMatchObject({ corrupt: 1, hits: 1, misses: 2, failures: 0 })
  })

  it('that a full server refuses are lost and counted', async () => {
    const { url } = await redis(['--maxmemory', '3mb', '--maxmemory-policy', 'noeviction'])
    const store = await connect(url)
    store.put(Array.from({ length: 6 }, (_, i) => blobOf(`k${i}`, 2 ** 20)))
    expect((await store.flush()).length).toBeGreaterThan(0)
    expect(counts(store)).toMatchObject({ failures: 1, lastError: expect.stringContaining('OOM') })
  })

  it('are misses while the server is gone, and hits again when it is back', async () => {
    const server = await redis()
    const store = await connect(server.url, { retryMs: 300 })
    store.put([blobOf('a')])
    await store.flush()
    await server.stop()
    expect(await store.get(['a'])).toEqual([undefined])
    expect(counts(store)?.failures).toBe(1)
    await redis([], Number(new URL(server.url).port))
    await wait(350)
    store.put([blobOf('a')])
    await store.flush()
    expect(isRight((await store.get(['a']))[0], 'a')).toBe(0)
  })
})

describe('a server that', () => {
  it('is not there is named with what the system says of it', async () => {
    const store = await connect('redis://127.0.0.1:1')
    expect(await store.get(['a'])).toEqual([undefined])
    expect(counts(store)).toMatchObject({ failures: 1, lastError: expect.stringContaining('ECONNREFUSED') })
  })

  it('hangs costs its time-out once, then is left alone for a while', async () => {
    const server = await bad(() => undefined)
    const store = await connect(server.url, { timeoutMs: 200 })
    const start = performance.now()
    expect(await store.get(['a', 'b'])).toEqual([undefined, undefined])
    expect(performance.now() - start).toBeGreaterThan(190)
    const later = performance.now()
    for (let i = 0; i < 100; i++) expect(await store.get(['a'])).toEqual([undefined])
    store.put([blobOf('a')])
    expect(await store.has(['a'])).toEqual([false])
    expect(await store.flush()).toEqual([])
    expect(performance.now() - later).toBeLessThan(10_000) // a time-out each would be 20 s
    expect(counts(store)).toMatchObject({ failures: 1, misses: 102, dropped: 1, lastError: 'no answer within 200 ms' })
    expect(counts(store)?.skipped).toBe(102)
    expect(server.connections()).toBe(1)
  })

  it('hangs costs one time-out too when several ask at once', async () => {
    const server = await bad(() => undefined)
    const store = await connect(server.url, { timeoutMs: 100 })
    await Promise.all(Array.from({ length: 10 }, (_, i) => store.get([`k${i}`])))
    expect(counts(store)).toMatchObject({ failures: 1, misses: 10 })
  })

  it('answers at once but too slowly gets no more time than its bytes need', async () => {
    const server = await bad((socket) => {
      socket.once('data', () => {
        socket.write(':1000000\r\n')
        socket.once('data', () => socket.write('*1\r\n$1000000\r\nxxx'))
      })
    })
    const store = await connect(server.url, { timeoutMs: 300 })
    expect(await store.get(['a'])).toEqual([undefined])
    expect(counts(store)).toMatchObject({ failures: 1, lastError: 'no answer within 320 ms' })
  })

  it.each([
    [
      'writes something else',
      (socket: Socket) => socket.on('data', () => socket.write('HTTP/1.1 400 Bad Request\r\n\r\n')),
    ],
    [
      'writes errors',
      (socket: Socket) => socket.on('data', () => socket.write('-NOAUTH Authentication required.\r\n')),
    ],
    ['ends connections', (socket: Socket) => socket.on('data', () => socket.end())],
    ['ends connections at once', (socket: Socket) => socket.destroy()],
    ['ends within an answer', (socket: Socket) => socket.on('data', () => socket.end('$100\r\nabc'))],
    ['gives a length that is none', (socket: Socket) => socket.on('data', () => socket.write('$-77\r\n'))],
    ['claims a huge answer', (socket: Socket) => socket.on('data', () => socket.end(':999999999999999\r\n'))],
  ])('%s costs a miss', async (_, onConnection) => {
    const server = await bad(onConnection)
    const store = await connect(server.url, { timeoutMs: 500 })
    expect(await store.get(['a'])).toEqual([undefined])
    expect(await store.has(['a'])).toEqual([false])
    expect(counts(store)?.misses).toBe(1)
    expect(counts(store)?.failures).toBe(1)
  })

  it('is not there costs a miss, and is not named with its password', async () => {
    const store = await connect('redis://user:secret@127.0.0.1:1')
    expect(await store.get(['a'])).toEqual([undefined])
    expect(counts(store)).toMatchObject({ failures: 1 })
    expect(JSON.stringify(store.stats())).not.toContain('secret')
  })
})

describe('what failed', () => {
  it('is left alone twice as long after each failure in a row, up to a limit', () => {
    let now = 0
    const breaker = new Breaker({ retryMs: 100, maxRetryMs: 350, now: () => now })
    const pause = (): number => {
      breaker.failed()
      const start = now
      while (breaker.isOpen) now++
      return now - start
    }
    expect([pause(), pause(), pause(), pause()]).toEqual([100, 200, 350, 350])
    breaker.succeeded()
    expect([pause(), pause()]).toEqual([100, 200])
  })
})
