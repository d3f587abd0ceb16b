/** The cache of one case: filled without attention, then stepped as a model that writes would. */

import type { KvCache, LayerInput, LayerShape } from '../../src/cache/contract.ts'
import { createRandom, normal } from '../../src/kernels/cases.ts'
import { type AttendArgs, type Kernels, openKernels } from '../../src/kernels/index.ts'
import { createKvCache } from '../../src/policies/index.ts'
import { appendTo } from '../fill.ts'
import { median } from '../measure.ts'
import type { CacheCase, Flatness, Steps } from './contract.ts'

/** Tokens that are put in at once. */
const chunk = 4096
/** Inputs of steps, used in turn. */
const inputs = 64
/** Steps before the first that counts: code gets compiled. */
const warmUp = 600
/** Steps that two caches take in turns, and how often. */
const [block, blocks] = [32, 64]

export interface SessionOptions {
  /** Steps of a round. */
  readonly steps: number
  /** A round ends early after this. */
  readonly budgetMs: number
}

export class CacheSession {
  readonly #case: CacheCase
  readonly #options: SessionOptions
  readonly #shape: LayerShape
  readonly #kernels: Kernels
  readonly #output: Float32Array
  readonly #random = createRandom(1)
  readonly #filling: LayerInput
  readonly #steps: readonly LayerInput[]
  readonly #cache: KvCache
  /** Of the step in progress: what the attention of its query took. */
  #attendMs = 0
  /** In a cache that keeps all. */
  #bytesPerToken = 0

  constructor(cacheCase: CacheCase, options: SessionOptions) {
    const { heads, kvHeads, headDim, threads } = cacheCase
    this.#case = cacheCase
    this.#options = options
    this.#shape = { numHeads: heads, numKvHeads: kvHeads, headDim, valueDim: headDim }
    this.#output = new Float32Array(heads * headDim)
    this.#kernels = this.#timed(openKernels({ threads }))
    this.#filling = this.#randomTokens(chunk, 0)
    this.#steps = Array.from({ length: inputs }, () => this.#randomTokens(1, heads))
    this.#cache = this.#createCache()
    this.#warmUp()
  }

  #warmUp(): void {
    const cache = this.#createCache()
    for (let n = 0; n < warmUp; n++) this.#step(cache, n)
    this.#fill(cache, warmUp + this.#case.window)
    for (let n = 0; n < warmUp; n++) this.#step(cache, n)
    this.#bytesPerToken = cache.getCacheInfo().fullBytes / cache.seenTokens
    cache.dispose()
  }

  get description(): string {
    return this.#kernels.description
  }

  /** Attention whose result is that of the step is timed by itself; policies may attend to other ends. */
  #timed(kernels: Kernels): Kernels {
    const attend = (args: AttendArgs) => {
      const before = performance.now()
      kernels.attend(args)
      if (args.output === this.#output) this.#attendMs += performance.now() - before
    }
    return { ...kernels, attend }
  }

  /** Pages that come back; 0: none. */
  get #recall(): number {
    return this.#case.policy === 'full' ? 0 : (this.#case.recall ?? 0)
  }

  get #hasImportance(): boolean {
    return this.#case.policy.includes('linear')
  }

  #createCache(recall = this.#recall): KvCache {
    const { policy, kvDtype, window } = this.#case
    const shape = { numLayers: 1, layers: [this.#shape], hasImportance: this.#hasImportance }
    return createKvCache(this.#kernels, shape, {
      ...{ policy, kvDtype },
      ...(policy !== 'full' && { window, ...(recall > 0 && { recall }) }),
    })
  }

  #randomTokens(numTokens: number, queryHeads: number): LayerInput {
    const { kvHeads, headDim } = this.#case
    const uniform = (length: number) => Float32Array.from({ length }, () => 2 * this.#random() - 1)
    const size = numTokens * kvHeads * headDim
    const query = uniform(numTokens * queryHeads * headDim)
    return { ...this.#withImportance({ numTokens, query, key: uniform(size), value: uniform(size) }), rotary: null }
  }

  /** Drawn anew each time: what came before is beaten less and less often, as in a text. */
  #withImportance(input: LayerInput): LayerInput {
    if (!this.#hasImportance) return input
    return { ...input, importance: normal(this.#random, input.numTokens * this.#case.kvHeads) }
  }

  #fill(cache: KvCache, tokens: number): void {
    while (cache.seenTokens < tokens) {
      const numTokens = Math.min(chunk, tokens - cache.seenTokens)
      const { query: _, ...fresh } = this.#withImportance({ ...this.#filling, numTokens })
      appendTo(cache.layer(0), fresh)
    }
  }

  /** Why so many tokens can't be held: growing takes old and new memory at once, and a round may need a copy. */
  missingMemory(tokens: number): string | undefined {
    if (this.#case.policy !== 'full') return undefined
    const needed = 3 * tokens * this.#bytesPerToken
    const available = process.availableMemory()
    if (needed <= available) return undefined
    const gibibytes = (bytes: number) => (bytes / 2 ** 30).toFixed(1)
    return `would need ${gibibytes(needed)} GiB of memory, ${gibibytes(available)} are free`
  }

  /** Rounds of the same steps, of which the last has seen so many tokens. */
  measure(tokens: number, repeat: number): { rounds: Steps[]; bytes: number; recallRatio: number | null } {
    const steps = Math.max(1, Math.min(this.#options.steps, tokens >> 1))
    this.#fill(this.#cache, tokens - steps)
    const rounds = Array.from({ length: repeat }, () => this.#round(steps))
    return { rounds, bytes: rounds[0]!.bytes, recallRatio: this.#compareRecall() }
  }

  /** Steps on a cache that is as it was afterwards: one that grows is cut back, a bounded one is copied. */
  #round(steps: number): Steps & { bytes: number } {
    const cache = this.#cache.truncate ? this.#cache : this.#cache.fork()
    const { seenTokens } = cache
    globalThis.gc?.()
    const [all, updates]: [number[], number[]] = [[], []]
    const started = performance.now()
    for (let n = 0; n < steps; n++) {
      if (performance.now() - started > this.#options.budgetMs && n >= 4) break
      all.push(this.#step(cache, n))
      updates.push((all.at(-1) as number) - this.#attendMs)
    }
    const { bytes } = cache.getCacheInfo()
    if (cache === this.#cache) cache.truncate?.(seenTokens)
    else cache.dispose()
    const [meanMs, updateMean] = [mean(all), mean(updates)]
    const figures = { meanMs, medianMs: median(all), worstMs: Math.max(...all), updateShare: updateMean / meanMs }
    return { ...figures, updateMs: median(updates), bytes }
  }

  /** Milliseconds of a step. */
  #step(cache: KvCache, n: number): number {
    const input = this.#steps[n % inputs] as LayerInput
    // In place: what a model gives lies outside of JavaScript's heap, where a new array of few numbers does not.
    input.importance?.set(normal(this.#random, input.importance.length))
    this.#attendMs = 0
    const before = performance.now()
    cache.layer(0).attend(input, this.#output)
    return performance.now() - before
  }

  /** The cache as it is now beside one that has just filled, in blocks of steps, so that both see the same weather. */
  compare(): Flatness {
    const { window } = this.#case
    const young = this.#createCache()
    this.#fill(young, window)
    const toTokens = this.#cache.seenTokens
    const ratio = this.#inTurns(this.#cache, young)
    young.dispose()
    return { fromTokens: window, toTokens, ratio }
  }

  /** A copy of the cache as it is now beside one that nothing comes back to, whose steps are alike once it is full. */
  #compareRecall(): number | null {
    if (this.#recall === 0) return null
    const [cache, without] = [this.#cache.fork(), this.#createCache(0)]
    this.#fill(without, Math.min(cache.seenTokens, this.#case.window))
    const ratio = this.#inTurns(cache, without)
    cache.dispose()
    without.dispose()
    return ratio
  }

  /** What a step of a cache takes beside one of another. */
  #inTurns(cache: KvCache, other: KvCache): number {
    const ratios: number[] = []
    for (let round = 0; round < blocks; round++) {
      const first = this.#block(other)
      ratios.push(this.#block(cache) / first)
    }
    return median(ratios)
  }

  #block(cache: KvCache): number {
    let total = 0
    for (let n = 0; n < block; n++) total += this.#step(cache, n)
    return total
  }
}

function mean(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0) / values.length
}
