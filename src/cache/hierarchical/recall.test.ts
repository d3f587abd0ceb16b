/** Tokens that a bounded cache evicted and brings back: what is attended then, and what a lost page costs. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { createRandom, normal } from '../../kernels/cases.ts'
import { openKernels } from '../../kernels/index.ts'
import { createKvCache } from '../../policies/index.ts'
import type { CacheOptions, CacheShape, KvCache, LayerInput } from '../contract.ts'
import type { SequenceCache } from '../sequence-cache.ts'
import { decodeState, encodeState } from '../snapshot/codec.ts'
import { MemoryTier } from '../tiers/memory-tier.ts'
import { TieredStore } from '../tiers/tiered-store.ts'

const [H, K, D, E] = [4, 2, 8, 6]
const layer = { numHeads: H, numKvHeads: K, headDim: D, valueDim: E }
const shape = (hasImportance = false, rest = {}): CacheShape => {
  return { numLayers: 1, layers: [{ ...layer, ...rest }], hasImportance }
}
const kernels = openKernels({ threads: 1 })
const create = (options: CacheOptions, of = shape()): SequenceCache =>
  createKvCache(kernels, of, options) as SequenceCache

function tokens(random: () => number, numTokens: number): LayerInput {
  return {
    ...{ numTokens, query: normal(random, numTokens * H * D), key: normal(random, numTokens * K * D) },
    value: normal(random, numTokens * K * E),
    importance: normal(random, numTokens * K).map((score) => (random() < 0.1 ? Number.NEGATIVE_INFINITY : score)),
  }
}

function attend(cache: KvCache, input: LayerInput): Float32Array {
  const output = new Float32Array(input.numTokens * H * E)
  cache.layer(0).attend(input, output)
  return output
}

function feed(cache: KvCache, chunks: readonly number[], seed = 1): Float32Array[] {
  const random = createRandom(seed)
  return chunks.map((size) => attend(cache, tokens(random, size)))
}

const furthest = (a: Float32Array, b: Float32Array): number => Math.max(...a.map((value, i) => Math.abs(value - b[i]!)))

function isSame(a: readonly (Float32Array | Uint8Array)[], b: typeof a): boolean {
  const bytes = (all: typeof a) =>
    Buffer.concat(all.map((one) => Buffer.from(one.buffer, one.byteOffset, one.byteLength)))
  return bytes(a).equals(bytes(b))
}

describe.each<CacheOptions>([
  { policy: 'streaming', window: 12 },
  { policy: 'window', window: 5 },
  { policy: 'linear', window: 9, importance: 'value-norm', sinks: 2, recent: 3 },
  { policy: 'random', window: 20 },
])('$policy', (choice) => {
  test.each([
    ['', shape()],
    ['with importance', shape(true)],
    ['with ALiBi', shape(false, { alibiSlopes: Float32Array.of(0.01, 0.1, 0.2, 0.5) })],
  ])('with all pages back, a step is one of full attention %s', (_, of) => {
    for (const storage of ['contiguous', 'paged'] as const) {
      for (const kvDtype of ['f32', 'int8', 'int4'] as const) {
        const bounded = create({ ...choice, storage, kvDtype, residual: 0, recall: 100 }, of)
        const full = create({ policy: 'full', kvDtype, residual: 0 }, of)
        const random = createRandom(7)
        for (const size of [50, 1, 3, 60, 1, 1, 13, 1]) {
          const input = tokens(random, size)
          const [a, b] = [attend(bounded, input), attend(full, input)]
          if (size <= 32) expect(furthest(a, b)).toBeLessThan(2e-5)
        }
        bounded.dispose()
        full.dispose()
      }
    }
  })

  test('goes on as before after a fork, and from its state', () => {
    const sizes = fc.array(fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 50 })), { minLength: 1, maxLength: 8 })
    const property = fc.property(sizes, sizes, (before, after) => {
      const options = { ...choice, recall: 2 }
      const original = create(options, shape(true))
      feed(original, before)
      const restored = create(options, shape(true))
      decodeState(restored, encodeState(original))
      const fork = original.fork()
      const expected = feed(original, after, 2)
      original.reset()
      feed(original, [70], 3)
      expect(isSame(feed(restored, after, 2), expected)).toBe(true)
      expect(isSame(feed(fork, after, 2), expected)).toBe(true)
      expect(isSame([encodeState(restored)], [encodeState(fork)])).toBe(true)
      for (const cache of [original, restored, fork]) cache.dispose()
    })
    fc.assert(property, { numRuns: 15 })
  })
})

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
    expect(cache.explain()[0]!.recall).toEqual({ pages: 25, recalled: 2, missed: 0 })
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
    expect(cache.explain()[0]!.recall).toEqual({ pages: 25, recalled: 0, missed: 2 })
    await new Promise((resolve) => setTimeout(resolve, 10))
    attend(cache, tokens(createRandom(9), 1)) // the lost pages are not asked for again: others are
    expect(cache.explain()[0]!.recall!.missed).toBe(4)
  })

  test('is remembered no longer than the bytes allow', () => {
    const pageBytes = 16 * K * (D + E) * 4
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

test.each<[Partial<CacheOptions>, RegExp]>([
  [{ recall: 0 }, /expected an integer in 1..4096 for recall, got 0/],
  [{ recall: 2, policy: 'full', window: undefined } as object, /ranks tokens by themselves for recall, got "full"/],
  [{ recall: 2, policy: 'h2o' }, /ranks tokens by themselves for recall, got "h2o"/],
  [{ recall: 2, policy: 'adakv(linear)', importance: 'key-norm' }, /got "adakv\(linear\)"/],
  [{ recall: 2, positions: 'rank' }, /expected original positions with recall/],
  [{ recallBytes: 5 }, /recallBytes is for tokens that come back: give recall/],
  [{ recall: 2, recallStore: {} as never }, /expected a store of openTiers for recallStore, got an object/],
])('%j is refused', (change, message) => {
  expect(() => create({ policy: 'streaming', window: 12, ...change })).toThrow(message)
})
