/** A Redis that hangs while evicted tokens come back from it: steps go on, and what they give is right. */
import { setImmediate as breathe, setTimeout as wait } from 'node:timers/promises'
import { afterEach, expect, test, vi } from 'vitest'
import { createRandom } from '../../kernels/cases.ts'
import { attend, create, isSame, tokens } from '../../policies/testing/recall-layers.ts'
import type { CacheOptions, KvCache } from '../contract.ts'
import { smallLayer } from '../testing/small-layer.ts'
import type { TierOptions } from '../tiers/contract.ts'
import { openTiers } from '../tiers/open-tiers.ts'
import { startBadServer } from '../tiers/testing/bad-server.ts'
import { startRedis, withoutRedis } from '../tiers/testing/redis-server.ts'
import type { TieredStore } from '../tiers/tiered-store.ts'

const { numHeads: H, numKvHeads: K, headDim: D, valueDim: E } = smallLayer
const stops: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop()
})

async function open(tiers: readonly TierOptions[]): Promise<TieredStore> {
  const store = await openTiers(tiers)
  stops.push(() => store.close())
  return store
}

const options: CacheOptions = { policy: 'streaming', window: 12, recall: 3 }
const ofRedis = (store: TieredStore) => store.stats().find(({ name }) => name === 'redis')

test('one time-out in all, nothing that a step waits for, and what a cache gives whose pages are lost', async () => {
  const server = await startBadServer(() => undefined)
  stops.push(() => server.stop())
  const [timeoutMs, retryMs] = [1000, 60_000]
  const store = await open([{ kind: 'redis', url: server.url, timeoutMs, retryMs }])
  const cache = create({ ...options, recallStore: store })
  const without = create({ ...options, recallStore: await open([{ kind: 'ram', maxBytes: 1 }]) })
  const random = createRandom(3)
  const step = async (size: number): Promise<void> => {
    const input = tokens(random, size)
    expect(isSame([attend(cache, input)], [attend(without, input)])).toBe(true)
    await breathe()
  }
  await step(600)
  const start = performance.now()
  let longest = 0
  for (let last = start; ofRedis(store)?.failures === 0; last = performance.now()) {
    await step(1)
    longest = Math.max(longest, performance.now() - last)
    await wait(10)
  }
  expect(performance.now() - start).toBeGreaterThan(timeoutMs / 2)
  expect(longest).toBeLessThan(timeoutMs / 2)
  const { skipped = 0 } = ofRedis(store) ?? {}
  for (let n = 0; n < 400; n++) await step(1)
  expect(ofRedis(store)).toMatchObject({ failures: 1, lastError: expect.stringMatching(/^no answer within/) })
  expect(ofRedis(store)?.skipped).toBeGreaterThan(skipped)
  expect(server.connections()).toBe(1)
  expect(cache.explain()[0]!.recall!.missed).toBeGreaterThan(0)
})

const direction = Float32Array.from({ length: D }, (_, d) => (d % 2 ? 4 : -4))

/** A text with one loud key at position 100 of value 100, without rotation. */
function readNeedle(cache: KvCache): void {
  const text = tokens(createRandom(5), 400)
  for (let k = 0; k < K; k++) {
    text.key.set(direction, (100 * K + k) * D)
    text.value.fill(100, (100 * K + k) * E, (100 * K + k + 1) * E)
  }
  cache.layer(0).attend({ ...text, rotary: null }, new Float32Array(400 * H * E))
}

/** The least number of what a query in the direction of the needle gets. */
function lookForNeedle(cache: KvCache): number {
  const query = { ...tokens(createRandom(9), 1), key: new Float32Array(K * D) }
  for (let h = 0; h < H; h++) query.query.set(direction, h * D)
  const output = new Float32Array(H * E)
  cache.layer(0).attend({ ...query, rotary: null }, output)
  expect(output.every(Number.isFinite)).toBe(true)
  return Math.min(...output)
}

test.skipIf(withoutRedis)('pages of a server that stands still come back when it goes on', async () => {
  const server = await startRedis()
  stops.push(() => server.stop())
  const ram = { kind: 'ram', maxBytes: 20_000 } as const
  const store = await open([ram, { kind: 'redis', url: server.url, timeoutMs: 300, retryMs: 200 }])
  const cache = create({ ...options, recallStore: store })
  readNeedle(cache)
  await store.flush()
  await wait(50)
  server.process.kill('SIGSTOP')
  stops.push(async () => void server.process.kill('SIGCONT'))
  await vi.waitFor(() => {
    expect(lookForNeedle(cache)).toBeLessThan(10)
    expect(ofRedis(store)?.failures).toBe(1)
  }, 20_000)
  for (let n = 0; n < 30; n++) expect(lookForNeedle(cache)).toBeLessThan(10)
  server.process.kill('SIGCONT')
  await wait(400)
  await vi.waitFor(() => expect(lookForNeedle(cache)).toBeGreaterThan(99), { timeout: 20_000, interval: 2 })
})
