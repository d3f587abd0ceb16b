/** A token outside of the window that comes back, and what a page that is lost or damaged costs. */
import { describe, expect, test } from 'vitest'
import { createRandom } from '../../kernels/cases.ts'
import { create, tokens } from '../../policies/testing/recall-layers.ts'
import type { CacheOptions, KvCache, LayerInput } from '../contract.ts'
import { smallLayer } from '../testing/small-layer.ts'
import { MemoryTier } from '../tiers/memory-tier.ts'
import { TieredStore } from '../tiers/tiered-store.ts'

const { numHeads: H, numKvHeads: K, headDim: D, valueDim: E } = smallLayer

/** Without rotation, so that a query finds what points in its direction. */
function attend(cache: KvCache, input: LayerInput): Float32Array {
  const output = new Float32Array(input.numTokens * H * E)
  cache.layer(0).attend({ ...input, rotary: null }, output)
  return output
}

/** One loud key at a position, which queries of the same direction look at. */
function withNeedle(cache: KvCache, position: number, length: number): Float32Array {
  const random = createRandom(5)
  const direction = Float32Array.from({ length: D }, (_, d) => (d % 2 ? 1 : -1))
  const text = tokens(random, length)
  for (let k = 0; k < K; k++) {
    text.key.set(
      direction.map((value) => 4 * value),
      (position * K + k) * D,
    )
    text.value.fill(100, (position * K + k) * E, (position * K + k + 1) * E)
  }
  attend(cache, text)
  const query = { ...tokens(random, 1), key: new Float32Array(K * D) }
  for (let h = 0; h < H; h++)
    query.query.set(
      direction.map((value) => 4 * value),
      h * D,
    )
  return attend(cache, query)
}

describe('a needle outside of the window', () => {
  const options: CacheOptions = { policy: 'streaming', window: 12 }

  test('comes back by the bound of its page', () => {
    expect(Math.max(...withNeedle(create(options), 100, 400))).toBeLessThan(10)
    const cache = create({ ...options, recall: 1 })
    expect(Math.min(...withNeedle(cache, 100, 400))).toBeGreaterThan(99)
    expect(cache.explain()[0]!.recall).toMatchObject({ pages: 25, recalled: 2, missed: 0 })
  })

  /** A tier that loses or spoils what it is told to. */
  class Broken extends MemoryTier {
    readonly #spoil: (bytes: Uint8Array) => Uint8Array | undefined

    constructor(spoil: (bytes: Uint8Array) => Uint8Array | undefined) {
      super()
      this.#spoil = spoil
    }

    override getNow(keys: readonly string[]) {
      return super.getNow(keys).map((bytes) => bytes && this.#spoil(bytes.slice()))
    }
  }

  class Slow extends MemoryTier {
    override getNow(keys: readonly string[]): undefined[] {
      return keys.map(() => undefined)
    }

    override async get(keys: readonly string[]) {
      return super.getNow(keys)
    }
  }

  test.each<[string, (bytes: Uint8Array) => Uint8Array | undefined]>([
    ['lost', () => undefined],
    ['cut off', (bytes) => bytes.subarray(0, bytes.length - 1)],
    ['changed', (bytes) => bytes.fill(7, bytes.length - 3)],
  ])('costs itself and no more when it is %s', async (_, spoil) => {
    const recallStore = new TieredStore([new Broken(spoil)])
    const cache = create({ ...options, recall: 1, recallStore })
    expect(withNeedle(cache, 100, 400)).toEqual(withNeedle(create(options), 100, 400))
    expect(cache.explain()[0]!.recall).toMatchObject({ pages: 25, recalled: 0, missed: 2 })
    await new Promise((resolve) => setTimeout(resolve, 10))
    attend(cache, tokens(createRandom(9), 1)) // the lost pages are not asked for again: others are
    expect(cache.explain()[0]!.recall!.missed).toBe(4)
  })

  test('is remembered no longer than the bytes allow', () => {
    const pageBytes = K * (16 * (D + E) * 4 + 4 * D + 4)
    const cache = create({ ...options, recall: 1, recallBytes: 3 * pageBytes })
    expect(Math.max(...withNeedle(cache, 100, 400))).toBeLessThan(10)
    expect(cache.explain()[0]!.recall!.pages).toBe(3)
  })

  test('comes from a slower tier for the next step', async () => {
    const recallStore = new TieredStore([new MemoryTier({ maxBytes: 6000 }), new Slow()])
    const cache = create({ ...options, recall: 1, recallStore })
    withNeedle(cache, 100, 400)
    expect(cache.explain()[0]!.recall).toMatchObject({ recalled: 0, missed: 2 })
    await new Promise((resolve) => setTimeout(resolve, 10))
    const query = { ...tokens(createRandom(9), 1), key: new Float32Array(K * D) }
    const direction = Float32Array.from({ length: D }, (_, d) => (d % 2 ? 4 : -4))
    for (let h = 0; h < H; h++) query.query.set(direction, h * D)
    expect(Math.min(...attend(cache, query))).toBeGreaterThan(99)
  })
})
