/**
 * Every pairing of policy, storage type, storage and positions does what arrays and loops do, over random sequences of
 * calls; memory that holds no row is NaN, and every page is accounted for after every call.
 */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { CacheOptions, KvCache, LayerInput, LayerRotary, LayerShape } from '../cache/contract.ts'
import { createRandom, normal } from '../kernels/cases.ts'
import { type AttendArgs, type Kernels, openKernels } from '../kernels/index.ts'
import { storageCodecs } from '../kernels/storage.ts'
import { createKvCache } from './index.ts'
import { NaiveLayer } from './testing/naive-layer.ts'

const layer: LayerShape = { numHeads: 4, numKvHeads: 2, headDim: 8, valueDim: 6 }
const { numHeads: H, numKvHeads: K, headDim: D, valueDim: E } = layer
const frequencies = [0.9, 0.31, 0.07]
const rotary: LayerRotary = {
  pairs: frequencies.length,
  isInterleaved: false,
  fill(positions, _length, cos, sin) {
    for (let t = 0; t < positions.length; t++) {
      for (const [i, frequency] of frequencies.entries()) {
        cos[t * frequencies.length + i] = Math.cos((positions[t] as number) * frequency)
        sin[t * frequencies.length + i] = Math.sin((positions[t] as number) * frequency)
      }
    }
  },
}

/** NaN as f32, f16 and bf16. */
const poison = 0x7fc0

/** Kernels whose memory begins as NaN, and where rows past the end of a head turn to NaN before each attention. */
function poisoned(kernels: Kernels): Kernels {
  return {
    ...kernels,
    alloc(byteLength) {
      const memory = kernels.alloc(byteLength)
      memory.u16.fill(poison)
      return memory
    },
    attend(args) {
      spoil(args)
      kernels.attend(args)
    },
  }
}

function spoil({ segments, numKvHeads, headDim, valueDim }: AttendArgs): void {
  for (const { keys, values, layout, capacity, lengths } of segments) {
    if (layout === 'shared') continue // pages may be another sequence's too
    for (let k = 0; k < numKvHeads; k++) {
      const [from, to] = [k * capacity + (lengths[k] as number), (k + 1) * capacity]
      const nothing = keys instanceof Float32Array ? Number.NaN : poison
      keys.fill(nothing, from * headDim, to * headDim)
      values.fill(nothing, from * valueDim, to * valueDim)
    }
  }
}

type Step = { readonly kind: 'append' | 'decode' | 'fork' | 'swap' | 'reset' | 'truncate'; readonly size: number }

const steps = fc.array(
  fc.record({
    kind: fc.constantFrom('append', 'append', 'decode', 'decode', 'decode', 'fork', 'swap', 'reset', 'truncate'),
    size: fc.integer({ min: 1, max: 13 }),
  }) as fc.Arbitrary<Step>,
  { minLength: 6, maxLength: 14 },
)

const window = 12
const choices: CacheOptions[] = [
  { policy: 'full' },
  { policy: 'window', window },
  { policy: 'streaming', window },
  { policy: 'linear', window },
  { policy: 'linear', window, sinks: 2, recent: 3 },
  { policy: 'linear', window, importance: 'value-norm' },
  { policy: 'random', window },
  { policy: 'h2o', window },
  { policy: 'tova', window },
  { policy: 'snapkv', window, interval: 3 },
  { policy: 'keydiff', window, sinks: 1 },
  { policy: 'lagkv', window: 20 },
  { policy: 'expected-attention', window },
  { policy: 'adakv', window },
  { policy: 'adakv(linear)', window },
  { policy: 'pyramidkv(keydiff)', window },
  { policy: 'snapkv', window, leastWindow: 5, keepMass: 0.6 },
]

interface Sequence {
  readonly cache: KvCache
  readonly naive: NaiveLayer
}

class Run {
  readonly #options: CacheOptions
  readonly #random: () => number
  readonly #sequences: Sequence[]
  readonly #rotates: boolean

  constructor(kernels: Kernels, options: CacheOptions, seed: number) {
    const shape = { numLayers: 1, layers: [layer], hasImportance: true }
    const cache = createKvCache(kernels, shape, options)
    this.#options = options
    this.#random = createRandom(seed)
    this.#rotates = cache.layer(0).rotates === true
    const isRank = options.positions === 'rank'
    this.#sequences = [
      { cache, naive: new NaiveLayer({ shape: layer, isRank, ...(this.#rotates && { frequencies }) }) },
    ]
  }

  step({ kind, size }: Step): void {
    const current = this.#sequences[0] as Sequence
    if (kind === 'append') this.#feed(current, size)
    if (kind === 'decode') for (let n = 0; n < size; n++) this.#feed(current, 1)
    if (kind === 'fork') this.#fork(current)
    if (kind === 'swap') this.#sequences.push(this.#sequences.shift() as Sequence)
    if (kind === 'reset') this.#reset(current)
    if (kind === 'truncate') this.#truncate(current, size)
    for (const { cache } of this.#sequences) cache.checkIntegrity?.()
    this.#checkKept(this.#sequences[0] as Sequence)
  }

  /** Both go on at once, in what they share. */
  #fork(current: Sequence): void {
    const fork = { cache: current.cache.fork(), naive: current.naive.fork() }
    this.#sequences.push(fork)
    for (const sequence of [current, fork, current]) this.#feed(sequence, 1)
  }

  #reset({ cache, naive }: Sequence): void {
    cache.reset()
    naive.heads = naive.heads.map(() => [])
    naive.seen = 0
  }

  #truncate({ cache, naive }: Sequence, size: number): void {
    if (!cache.truncate) return
    naive.seen = Math.max(0, naive.seen - size)
    cache.truncate(naive.seen)
    naive.heads = naive.heads.map((tokens) => tokens.filter(({ position }) => position < naive.seen))
  }

  #feed(sequence: Sequence, numTokens: number): void {
    const random = this.#random
    const input: LayerInput = {
      ...{ numTokens, query: normal(random, numTokens * H * D), key: normal(random, numTokens * K * D) },
      value: normal(random, numTokens * K * E),
      importance: normal(random, numTokens * K).map((score) => (random() < 0.1 ? Number.NEGATIVE_INFINITY : score)),
      ...(this.#rotates && { rotary }),
    }
    const output = new Float32Array(numTokens * H * E).fill(Number.NaN)
    sequence.cache.layer(0).attend(input, output)
    this.#expect(sequence, input, output)
  }

  /** Static policies keep at every step, so what a query saw is asked of a cache that is fed one token at a time. */
  #expect({ cache, naive }: Sequence, input: LayerInput, output: Float32Array): void {
    const { read, write } = storageCodecs[this.#options.kvDtype ?? 'f32']
    const stored = (array: Float32Array, at: number, dim: number) => {
      return Float64Array.from(array.subarray(at * dim, (at + 1) * dim), (value) => read(write(value)))
    }
    const isSingle = input.numTokens === 1 || !this.#isStatic
    for (let t = 0; t < input.numTokens; t++) {
      for (let k = 0; k < K; k++) {
        const bias = (input.importance as Float32Array)[t * K + k] as number
        const at = t * K + k
        const token = { position: naive.seen, key: stored(input.key, at, D), value: stored(input.value, at, E), bias }
        if (this.#isStatic || bias !== Number.NEGATIVE_INFINITY) naive.add(k, token)
      }
      naive.seen++
    }
    if (this.#isStatic) for (let k = 0; k < K; k++) naive.keep(k, cache.layer(0).positions(k))
    const first = naive.seen - input.numTokens
    for (let t = 0; isSingle && t < input.numTokens; t++) {
      for (let h = 0; h < H; h++) {
        const at = t * H + h
        const expected = naive.attend(Float64Array.from(input.query.subarray(at * D, (at + 1) * D)), h, first + t)
        for (let e = 0; e < E; e++) {
          expect(Math.abs((output[at * E + e] as number) - (expected[e] as number))).toBeLessThanOrEqual(
            this.#tolerance,
          )
        }
      }
    }
    for (let k = 0; k < K; k++) naive.keep(k, cache.layer(0).positions(k))
  }

  get #isStatic(): boolean {
    return ['full', 'window', 'streaming', 'linear', 'random'].includes(this.#options.policy)
  }

  /** Rounded keys are turned and rounded again where the cache rotates. */
  get #tolerance(): number {
    return { f32: 2e-5, f16: 4e-3, bf16: 3e-2 }[this.#options.kvDtype ?? 'f32'] * (this.#rotates ? 4 : 1)
  }

  #checkKept({ cache, naive }: Sequence): void {
    const info = cache.getCacheInfo()
    expect(info.seenTokens).toBe(naive.seen)
    const { heads } = cache.explain!()[0]!
    for (const [k, { positions, scores }] of heads.entries()) {
      expect(positions).toEqual(cache.layer(0).positions(k))
      expect(positions).toEqual(naive.heads[k]!.map(({ position }) => position))
      expect(scores.length).toBe(positions.length)
      if (this.#options.window && !this.#options.policy.startsWith('adakv')) {
        expect(positions.length).toBeLessThanOrEqual(this.#options.window)
      }
    }
    if (this.#options.window) {
      const total = heads.reduce((sum, { positions }) => sum + positions.length, 0)
      expect(total).toBeLessThanOrEqual(K * this.#options.window)
    }
  }

  dispose(): void {
    for (const { cache } of this.#sequences) cache.dispose()
  }
}

const kernels = poisoned(openKernels({ threads: 1 }))

describe.each(choices)('%j', (choice) => {
  describe.each(['contiguous', 'paged'] as const)('%s', (storage) => {
    test.each(['f32', 'f16', 'bf16'] as const)('original and by rank, %s', (kvDtype) => {
      for (const positions of ['original', 'rank'] as const) {
        if (positions === 'rank' && choice.policy === 'full') continue
        const options: CacheOptions = { ...choice, storage, pageSize: 4, kvDtype, positions }
        const property = fc.property(steps, fc.integer({ min: 0, max: 1000 }), (list, seed) => {
          const run = new Run(kernels, options, seed)
          for (const step of list) run.step(step)
          run.dispose()
        })
        fc.assert(property, { numRuns: 4, seed: 1 })
      }
    })
  })
})
