/** Sequences of calls to caches, each beside its naive layers: every step compares outputs, who stays and why. */
import { expect } from 'vitest'
import type { CacheOptions, KvCache, KvPool, LayerInput } from '../../cache/contract.ts'
import { frequencies, smallRotary as rotary, smallLayer as shape } from '../../cache/testing/small-layer.ts'
import { createRandom, normal } from '../../kernels/cases.ts'
import type { Kernels, StorageType } from '../../kernels/index.ts'
import { createKvCache, createKvPool } from '../index.ts'
import { NaiveLayer } from './naive-layer.ts'
import { rulesOf } from './naive-rules.ts'
import { poisoned } from './poison.ts'

const { numHeads: H, numKvHeads: K, headDim: D, valueDim: E } = shape

/** `read`: a chunk that is longer than those for which tokens come back. */
export type StepKind = 'append' | 'read' | 'decode' | 'fork' | 'swap' | 'reset' | 'truncate' | 'dispose'
export interface Step {
  readonly kind: StepKind
  readonly size: number
}

interface Sequence {
  readonly cache: KvCache
  readonly naive: NaiveLayer[]
}

/** Sums of f32 against f64. */
const roundingError = 3e-5

/**
 * Numbers that the cache rotates, or transforms as it does rows that come back, lie a little beside those of f64 before
 * they are rounded, so that one in thousands goes to the neighbour: what that may change an output by.
 */
const neighbour = {
  ...{ f32: 0, f16: 2e-3, bf16: 1.5e-2 },
  ...{ int8: 2e-2, 'fp8-e4m3': 0.15, 'fp8-e5m2': 0.3, int4: 0.3 },
} as const satisfies Record<StorageType, number>

export class Sequences {
  readonly #options: CacheOptions
  readonly #random: () => number
  readonly #pool: KvPool | undefined
  readonly #rotates: boolean
  readonly #tolerance: number
  #sequences: Sequence[]

  constructor(kernels: Kernels, options: CacheOptions, seed: number) {
    // A mask over everything is made query by query, while rows of later tokens are there already.
    const isMask = options.policy === 'full' && options.window !== undefined
    const guarded = poisoned(kernels, () => isMask || this.#sequences.length > 1)
    const isPyramid = options.policy.includes('pyramidkv')
    const { pageSize, kvDtype, kvDtypeK, kvDtypeV, residual } = options
    const pooled = { pageSize, kvDtype, kvDtypeK, kvDtypeV, residual }
    this.#pool = options.storage === 'paged' ? createKvPool(guarded, pooled) : undefined
    this.#options = options
    this.#random = createRandom(seed)
    this.#sequences = []
    const numLayers = isPyramid ? 3 : 1
    const layers = Array.from({ length: numLayers }, () => shape)
    const cache = createKvCache(guarded, { numLayers, layers, hasImportance: true }, { ...options, pool: this.#pool })
    this.#rotates = cache.layer(0).rotates === true
    const isBeside = this.#rotates || (options.recall !== undefined && this.#isTransformed)
    this.#tolerance = roundingError + (isBeside ? Math.max(...this.#types.map((type) => neighbour[type])) : 0)
    const naive = windowsOf(options.window, isPyramid).map((window, layer) => this.#naiveLayer(window, layer))
    this.#sequences.push({ cache, naive })
  }

  /** Of keys and values. */
  get #types(): [StorageType, StorageType] {
    const { kvDtype = 'f32', kvDtypeK = kvDtype, kvDtypeV = kvDtype } = this.#options
    return [kvDtypeK, kvDtypeV]
  }

  get #isTransformed(): boolean {
    return this.#types.some((type) => !['f32', 'f16', 'bf16'].includes(type))
  }

  #naiveLayer(window: number | undefined, layer: number): NaiveLayer {
    const options = this.#options
    const usual = this.#types.some((type) => !['f32', 'f16', 'bf16', 'int8'].includes(type)) ? 128 : 0
    // What keeps everything is bounded by no window.
    const most = options.policy === 'full' ? Infinity : (window ?? Infinity)
    return new NaiveLayer({
      ...{ shape, layer, rules: rulesOf(options, window), seed: options.seed ?? 0 },
      ...{ keyStorage: this.#types[0], valueStorage: this.#types[1] },
      isTransformed: this.#isTransformed,
      residual: Math.min(options.residual ?? Math.min(usual, Math.ceil(most / 4)), most),
      ...{ isRank: options.positions === 'rank', ...(this.#rotates && { frequencies }), recall: options.recall },
    })
  }

  step({ kind, size }: Step): void {
    const current = this.#sequences[0] as Sequence
    if (kind === 'append') this.#feed(current, size)
    if (kind === 'read') this.#feed(current, 32 + size)
    if (kind === 'decode') for (let n = 0; n < size; n++) this.#feed(current, 1)
    if (kind === 'fork') this.#fork(current)
    if (kind === 'swap') this.#sequences.push(this.#sequences.shift() as Sequence)
    if (kind === 'reset') this.#reset(current)
    if (kind === 'truncate') this.#truncate(current, size)
    if (kind === 'dispose' && this.#sequences.length > 1) this.#sequences.shift()?.cache.dispose()
    for (const { cache } of this.#sequences) cache.checkIntegrity?.()
    this.#pool?.checkIntegrity()
    for (const sequence of this.#sequences) this.#check(sequence)
  }

  /** Both go on at once, in what they share. */
  #fork(current: Sequence): void {
    if (this.#sequences.length > 3) return
    const fork = { cache: current.cache.fork(), naive: current.naive.map((layer) => layer.fork()) }
    this.#sequences.push(fork)
    for (const sequence of [current, fork, current]) this.#feed(sequence, 1)
  }

  #reset({ cache, naive }: Sequence): void {
    cache.reset()
    for (const layer of naive) layer.reset()
  }

  #truncate({ cache, naive }: Sequence, size: number): void {
    if (!cache.truncate) return
    const length = Math.max(0, cache.seenTokens - size)
    cache.truncate(length)
    for (const layer of naive) layer.truncate(length)
  }

  #feed({ cache, naive }: Sequence, numTokens: number): void {
    const random = this.#random
    for (const [index, layer] of naive.entries()) {
      const input: LayerInput = {
        ...{ numTokens, query: normal(random, numTokens * H * D), key: normal(random, numTokens * K * D) },
        value: normal(random, numTokens * K * E),
        importance: importances(random, numTokens),
        ...(this.#rotates && { rotary }),
      }
      const output = new Float32Array(numTokens * H * E).fill(Number.NaN)
      cache.layer(index).attend(input, output)
      const expected = layer.attend(input)
      const worst = expected.reduce((most, value, i) => {
        const difference = Math.abs(value - (output[i] as number))
        return difference <= most ? most : Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference
      }, 0)
      expect(worst).toBeLessThanOrEqual(this.#tolerance)
    }
  }

  #check({ cache, naive }: Sequence): void {
    const explanation = cache.explain!()
    for (const [index, layer] of naive.entries()) {
      expect(cache.layer(index).info().seenTokens).toBe(layer.seen)
      for (const [k, { positions, scores }] of explanation[index]!.heads.entries()) {
        const kept = layer.heads[k]!
        expect(positions).toEqual(kept.map(({ position }) => position))
        expect(cache.layer(index).positions(k)).toEqual(positions)
        for (const [n, score] of scores.entries()) this.#checkScore(score, kept[n]!.score)
      }
    }
  }

  #checkScore(score: number | null, expected: number): void {
    if (score === null) return
    if (Number.isFinite(expected)) expect(Math.abs(score - expected)).toBeLessThanOrEqual(10 * this.#tolerance)
    else expect(score).toBe(expected)
  }

  /** The last one out leaves nothing behind. */
  dispose(): void {
    for (const { cache } of this.#sequences) cache.dispose()
    this.#pool?.checkIntegrity()
    expect(this.#pool?.usedBytes ?? 0).toBe(0)
  }
}

/** Some equal, some hidden. */
function importances(random: () => number, numTokens: number): Float32Array {
  return normal(random, numTokens * K).map((score) => {
    const lot = random()
    return lot < 0.1 ? Number.NEGATIVE_INFINITY : lot < 0.4 ? Math.round(score) : score
  })
}

/** W of each layer; in a pyramid of three, the first has all but a twentieth of what first and last have together. */
function windowsOf(window: number | undefined, isPyramid: boolean): (number | undefined)[] {
  if (!isPyramid || window === undefined) return [window]
  return [2 * window - window / 20, window, window / 20]
}
