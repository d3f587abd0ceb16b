/**
 * A cache that was written down and built anew goes on exactly as the one that was not: the same bits out of every
 * call, the same tokens kept, the same state at the end.
 */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { openKernels } from '../../kernels/index.ts'
import { openReference } from '../../kernels/reference.ts'
import { createKvCache } from '../../policies/index.ts'
import type { CacheOptions, KvCache } from '../contract.ts'
import type { SequenceCache } from '../sequence-cache.ts'
import { decodeState, encodeState, stateBytes } from './codec.ts'
import { choices, feed, shape } from './testing/layers.ts'

const kernels = openKernels({ threads: 1 })
const create = (options: CacheOptions): SequenceCache => createKvCache(kernels, shape, options) as SequenceCache

const chunks = fc.array(fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 17 })), { minLength: 1, maxLength: 9 })

/** Bit by bit; comparing numbers one by one takes most of the time of these tests. */
function expectBits(got: readonly (Uint8Array | Float32Array)[], expected: typeof got): void {
  const bytes = (arrays: typeof got) =>
    Buffer.concat(arrays.map((a) => Buffer.from(a.buffer, a.byteOffset, a.byteLength)))
  expect(bytes(got).equals(bytes(expected))).toBe(true)
}

function expectSame(restored: KvCache, original: KvCache): void {
  expect(restored.seenTokens).toBe(original.seenTokens)
  expect(restored.tokens).toEqual(original.tokens)
  expect(restored.explain?.()).toEqual(original.explain?.())
}

const settings = fc.record({
  kvDtype: fc.constantFrom('f32', 'f16', 'bf16', 'int8', 'fp8-e4m3', 'int4'),
  residual: fc.constantFrom(0, 5),
  positions: fc.constantFrom('original', 'rank'),
  storage: fc.constantFrom('contiguous', 'paged'),
  pageSize: fc.constantFrom(4, 16),
})

test.each(choices)('%j goes on as though nothing had been', (choice) => {
  const property = fc.property(chunks, chunks, settings, (before, after, setting) => {
    const options = { ...choice, ...setting } as CacheOptions
    if (choice.policy === 'full') delete (options as { positions?: string }).positions
    const original = create(options)
    feed(original, before, 1)
    const state = encodeState(original)
    expect(state.length).toBe(stateBytes(original))
    const restored = create(options)
    decodeState(restored, state)
    expectSame(restored, original)
    expectBits([encodeState(restored)], [state])
    expectBits(feed(restored, after, 2), feed(original, after, 2))
    expectSame(restored, original)
    restored.checkIntegrity()
    expectBits([encodeState(restored)], [encodeState(original)])
    restored.dispose()
    original.dispose()
  })
  fc.assert(property, { numRuns: 24 })
})

test.each(choices)('%j: pages and rows side by side have the same state', (choice) => {
  const original = create({ ...choice, storage: 'paged', pageSize: 4 })
  feed(original, [17, 1, 1, 6], 1)
  const restored = create({ ...choice, storage: 'contiguous' })
  decodeState(restored, encodeState(original))
  expectSame(restored, original)
  expectBits([encodeState(restored)], [encodeState(original)])
})

test.each(choices)('%j: a state goes on with another backend', (choice) => {
  const reference = openReference()
  for (const [from, to] of [
    [reference, kernels],
    [kernels, reference],
  ] as const) {
    const original = createKvCache(from, shape, choice)
    feed(original, [17, 1, 1, 6], 1)
    const restored = createKvCache(to, shape, choice)
    decodeState(restored as SequenceCache, encodeState(original as SequenceCache))
    for (const cache of [original, restored]) feed(cache, [1, 1, 3, 1, 1, 1, 1], 2)
    for (let index = 0; index < restored.numLayers; index++) {
      const kept = (cache: KvCache) => [0, 1].map((head) => cache.layer(index).positions(head))
      expect(kept(restored)).toEqual(kept(original))
    }
  }
})

test('a restored cache can be forked, truncated and reset', () => {
  const original = create({ policy: 'full' })
  feed(original, [9, 1], 1)
  const restored = create({ policy: 'full' })
  decodeState(restored, encodeState(original))
  restored.truncate?.(4)
  expect(restored.tokens).toEqual(original.tokens?.subarray(0, 4))
  const fork = restored.fork()
  restored.reset()
  expect([restored.seenTokens, fork.seenTokens]).toEqual([0, 4])
  expect(fork.tokens).toEqual(original.tokens?.subarray(0, 4))
})

test('tokens that nobody told are not made up', () => {
  const cache = create({ policy: 'window', window: 4 })
  const silent = { ...cache, numLayers: 2, layer: (index: number) => cache.layer(index) } as unknown as KvCache
  feed({ ...silent, noteTokens: undefined } as unknown as KvCache, [3], 1)
  expect(cache.tokens).toBeUndefined()
  cache.noteTokens([5])
  expect(cache.tokens).toBeUndefined()
  const restored = create({ policy: 'window', window: 4 })
  decodeState(restored, encodeState(cache))
  expect(restored.tokens).toBeUndefined()
})

describe('refusals', () => {
  const options: CacheOptions = { policy: 'streaming', window: 12 }
  const written = (cache = create(options)): Uint8Array => {
    feed(cache, [20], 1)
    return encodeState(cache)
  }

  test.each<[Partial<CacheOptions>, RegExp]>([
    [{ window: 13 }, /expected window 13, got "window 12"/],
    [{ sinks: 2 }, /expected sinks 2, got "sinks 4"/],
    [{ kvDtype: 'f16' }, /expected kvDtypeK f16, got "kvDtypeK f32"/],
    [{ policy: 'linear' }, /expected ranked by importance, got "ranked by recency"/],
    [{ policy: 'h2o' }, /expected cache ranked, got "cache bounded"/],
    [{ policy: 'full', window: undefined } as Partial<CacheOptions>, /expected cache full, got "cache bounded"/],
    [{ positions: 'rank' }, /expected rotates true, got "rotates false"/],
    [{ evictionLog: 3 }, /expected eviction log 3, got "eviction log 256"/],
  ])('%j', (change, message) => {
    expect(() => decodeState(create({ ...options, ...change }), written())).toThrow(message)
  })

  test('any end but the right one', () => {
    const state = written()
    for (let length = 0; length < state.length; length += 1 + Math.floor(length / 40)) {
      expect(() => decodeState(create(options), state.subarray(0, length))).toThrow(/\[kvasir:cache\] expected/)
    }
    const longer = new Uint8Array(state.length + 1)
    longer.set(state)
    expect(() => decodeState(create(options), longer)).toThrow('expected the end of the state, got 1 more bytes')
  })

  test.each(choices)('%j: no bits make a crash of a later step', (choice) => {
    const original = create(choice)
    feed(original, [30, 1], 1)
    const state = encodeState(original)
    const flips = fc.array(fc.integer({ min: 0, max: state.length * 8 - 1 }), { minLength: 1, maxLength: 8 })
    const property = fc.property(flips, (bits) => {
      const broken = state.slice()
      for (const bit of bits) broken[bit >> 3]! ^= 1 << (bit & 7)
      const cache = create(choice)
      try {
        decodeState(cache, broken)
        feed(cache, [3, 1, 1], 2)
      } catch (error) {
        expect(String(error)).toMatch(/\[kvasir:\w+\]/)
      }
      cache.dispose()
    })
    fc.assert(property, { numRuns: 25 })
    original.dispose()
  })
})
