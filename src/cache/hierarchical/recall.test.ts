/** Tokens that a bounded cache evicted and brings back: what is attended then, for every policy that evicts. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { createRandom } from '../../kernels/cases.ts'
import { openKernels, storageTypes } from '../../kernels/index.ts'
import { attend, create, feed, furthest, isSame, shape, tokens } from '../../policies/testing/recall-layers.ts'
import type { CacheOptions } from '../contract.ts'
import { decodeState, encodeState } from '../snapshot/codec.ts'

const pairsOfTypes = [
  ...storageTypes.map((kvDtype) => ({ kvDtype })),
  { kvDtypeK: 'int8', kvDtypeV: 'int4' },
  { kvDtypeK: 'f16', kvDtypeV: 'fp8-e4m3' },
] as const satisfies Partial<CacheOptions>[]

describe.each<CacheOptions>([
  { policy: 'streaming', window: 12 },
  { policy: 'window', window: 5 },
  { policy: 'linear', window: 9, importance: 'value-norm', sinks: 2, recent: 3 },
  { policy: 'random', window: 20 },
  { policy: 'h2o', window: 12, interval: 3 },
  { policy: 'snapkv', window: 16 },
  { policy: 'expected-attention', window: 24 },
  { policy: 'keydiff', window: 20, leastWindow: 4 },
  { policy: 'adakv(lagkv)', window: 16, sinks: 2 },
  { policy: 'pyramidkv(tova)', window: 10 },
])('$policy', (choice) => {
  test.each([
    ['', shape()],
    ['with importance', shape(true)],
    ['with ALiBi', shape(false, { alibiSlopes: Float32Array.of(0.01, 0.1, 0.2, 0.5) })],
  ])('with all pages back, a step is one of full attention %s', (_, of) => {
    for (const [n, types] of pairsOfTypes.entries()) {
      const storage = n % 2 ? 'paged' : 'contiguous'
      const bounded = create({ ...choice, ...types, storage, residual: 0, recall: 100 }, of)
      const full = create({ policy: 'full', ...types, residual: 0 }, of)
      const random = createRandom(7)
      for (const size of [50, 1, 3, 60, 1, 1, 13, 1]) {
        const input = tokens(random, size)
        const [a, b] = [attend(bounded, input), attend(full, input)]
        if (size <= 32) expect(furthest(a, b)).toBeLessThan(2e-5)
      }
      bounded.dispose()
      full.dispose()
    }
  })

  test('goes on as before after a fork, and from its state', () => {
    const chunks = fc.array(fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 50 })), { minLength: 1, maxLength: 8 })
    const types = fc.constantFrom(...pairsOfTypes)
    const residual = fc.constantFrom(0, 5)
    const property = fc.property(chunks, chunks, types, residual, (before, after, pair, recent) => {
      const options = { ...choice, ...pair, residual: recent, recall: 2 }
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
    fc.assert(property, { numRuns: 6 })
  })
})

test('in WebAssembly, whose memory moves when it grows, as well', () => {
  for (const policy of ['streaming', 'h2o'] as const) {
    const kernels = openKernels({ backend: 'wasm', threads: 1 })
    const bounded = create({ policy, window: 20, recall: 300, kvDtype: 'int8' }, shape(), kernels)
    const full = create({ policy: 'full', kvDtype: 'int8' }, shape(), kernels)
    const random = createRandom(7)
    for (const size of [50, 1, 3, 600, 1, 31, 700, 1, 5, 1000, 1]) {
      const input = tokens(random, size)
      const [a, b] = [attend(bounded, input), attend(full, input)]
      if (size <= 32) expect(furthest(a, b)).toBeLessThan(2e-5)
    }
  }
})

test.each<[Partial<CacheOptions>, RegExp]>([
  [{ recall: 0 }, /expected an integer in 1..4096 for recall, got 0/],
  [{ recall: 2, policy: 'full', window: undefined } as object, /"full" evicts nothing that could come back/],
  [{ recall: 2, positions: 'rank' }, /expected original positions with recall, got "rank": by rank an evicted token/],
  [{ recallBytes: 5 }, /recallBytes is for tokens that come back: give recall/],
  [{ recall: 2, recallStore: {} as never }, /expected a store of openTiers for recallStore, got an object/],
])('%j is refused', (change, message) => {
  expect(() => create({ policy: 'streaming', window: 12, ...change })).toThrow(message)
})
