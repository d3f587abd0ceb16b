/**
 * One layer of one sequence in a fixed number of rows: for each KV head, W tokens of the stream, chosen by a static
 * score (docs/caches.md). An evicted token can never come back, so every key has one lifetime and a chunk of T tokens
 * gives what T single tokens give: old rows live until their death, new tokens from birth to death.
 */
import type { KeyValueSegment, Memory } from '../kernels/index.ts'
import { KvasirError } from '../tensor/error.ts'
import type { CacheInfo, LayerCache, LayerInput } from './contract.ts'
import { createPlan, KeptState, type RetainPlan } from './kept-state.ts'
import {
  attentionOf,
  bytesPerToken,
  checkInput,
  consecutiveRows,
  headMajor,
  KeyValueStore,
  type LayerConfig,
} from './layout.ts'

export interface BoundedCacheOptions extends LayerConfig {
  /** W */
  readonly window: number
  readonly sinks: number
  readonly recent: number
  /** What ranks tokens: the model's importance, or nothing, so that the newer wins every tie (a sliding window). */
  readonly rankBy: 'importance' | 'recency'
  /** Whether importance is added to the logits (default true). */
  readonly addImportance?: boolean
}

type Queries = Pick<LayerInput, 'query' | 'numTokens'>

export class BoundedCache implements LayerCache {
  readonly #options: BoundedCacheOptions
  readonly #store: KeyValueStore
  readonly #state: KeptState
  readonly #bias: Memory | undefined
  readonly #lengths: Int32Array
  readonly #needsImportance: boolean
  /** The single-token step reuses these, so that it allocates nothing that lasts. */
  readonly #step: RetainPlan
  /** Scores of one token where recency ranks: all the same. */
  readonly #equal: Float32Array
  #seen = 0

  constructor(options: BoundedCacheOptions, hasImportance: boolean) {
    const { kernels, shape, window } = options
    this.#options = options
    this.#store = new KeyValueStore(options, window)
    this.#state = new KeptState(options)
    const usesBias = hasImportance && options.addImportance !== false
    this.#bias = usesBias ? kernels.alloc(shape.numKvHeads * window * 4) : undefined
    this.#needsImportance = usesBias || options.rankBy === 'importance'
    this.#lengths = new Int32Array(shape.numKvHeads)
    this.#step = createPlan(shape.numKvHeads, window, 1)
    this.#equal = new Float32Array(shape.numKvHeads)
  }

  attend(input: LayerInput, output: Float32Array): void {
    checkInput(this.#options, this.#needsImportance, input, output)
    if (input.numTokens === 1) this.#attendOne(input, output)
    else if (input.numTokens > 1) this.#attendChunk(input, output)
  }

  /** Takes tokens in without attending. */
  append(input: Omit<LayerInput, 'query'>): void {
    checkInput(this.#options, this.#needsImportance, input)
    if (input.numTokens > 0) this.#take(input)
  }

  #take(input: Omit<LayerInput, 'query'>): void {
    const { shape, window } = this.#options
    const plan = input.numTokens === 1 ? this.#step : createPlan(shape.numKvHeads, window, input.numTokens)
    this.#retain(input, plan)
    this.#commit(input, plan)
  }

  /** Decode: the cache is brought up to date first, then holds exactly what the new token sees. */
  #attendOne(input: LayerInput, output: Float32Array): void {
    this.#take(input)
    this.#attendKept(input, output)
  }

  #attendKept(input: Queries, output: Float32Array): void {
    this.#runAttention(input, output, [
      { ...this.#segment(this.#state.view.lengths), ...this.#distances(this.#seen - 1) },
    ])
  }

  attendAgain(input: Queries, output: Float32Array): void {
    checkInput(this.#options, false, input, output, true)
    if (input.numTokens === 1) return this.#attendKept(input, output)
    throw new KvasirError(
      'unsupported',
      'cache',
      'expected single tokens for shared keys and values in a bounded cache',
    )
  }

  /** Positions of kept rows, relative to the first query: only ALiBi asks for them. */
  #distances(first: number): { positions?: Int32Array } {
    if (!this.#options.shape.alibiSlopes) return {}
    return { positions: Int32Array.from(this.#state.view.positions, (position) => position - first) }
  }

  /** Prefill: attends over old rows and the chunk, each with its lifetimes, then keeps the survivors. */
  #attendChunk(input: LayerInput, output: Float32Array): void {
    const { shape, window } = this.#options
    const { numTokens } = input
    this.#lengths.set(this.#state.view.lengths)
    const distances = this.#distances(this.#seen)
    const plan = createPlan(shape.numKvHeads, window, numTokens)
    // What can run out of memory comes before what changes the kept set.
    const chunk = new KeyValueStore(this.#options, numTokens)
    try {
      const rows = consecutiveRows(shape.numKvHeads, numTokens, 0)
      chunk.write(input.key, input.value, numTokens, rows)
      this.#retain(input, plan)
      this.#runAttention(input, output, [
        { ...this.#segment(this.#lengths), ...distances, deaths: plan.rowDeaths },
        {
          keys: chunk.keys,
          values: chunk.values,
          capacity: numTokens,
          lengths: rows.counts,
          bias: this.#bias && headMajor(input.importance, shape.numKvHeads, numTokens),
          firstPosition: 0,
          births: rows.tokens,
          deaths: plan.tokenDeaths,
        },
      ])
    } finally {
      chunk.free()
    }
    this.#commit(input, plan)
  }

  #segment(lengths: Int32Array): KeyValueSegment {
    const { keys, values, capacity } = this.#store
    return { keys, values, capacity, lengths, bias: this.#bias?.f32 }
  }

  #retain({ importance, numTokens }: Omit<LayerInput, 'query'>, plan: RetainPlan): void {
    const { kernels, rankBy, shape } = this.#options
    const count = numTokens * shape.numKvHeads
    const scores = rankBy === 'importance' ? importance : numTokens === 1 ? this.#equal : new Float32Array(count)
    kernels.retain({
      kept: this.#state.view,
      scores: scores as Float32Array,
      numTokens,
      firstPosition: this.#seen,
      ...plan,
    })
    this.#seen += numTokens
  }

  #commit({ key, value, importance, numTokens }: Omit<LayerInput, 'query'>, plan: RetainPlan): void {
    this.#store.write(key, value, numTokens, plan)
    if (!this.#bias || !importance) return
    const { window, shape } = this.#options
    const bias = this.#bias.f32
    for (let k = 0; k < shape.numKvHeads; k++) {
      for (let n = k * plan.stride; n < k * plan.stride + (plan.counts[k] as number); n++) {
        const token = plan.tokens[n] as number
        bias[k * window + (plan.slots[n] as number)] = importance[token * shape.numKvHeads + k] as number
      }
    }
  }

  #runAttention({ query, numTokens }: Queries, output: Float32Array, segments: KeyValueSegment[]): void {
    const { kernels, shape } = this.#options
    kernels.attend({ query, output, numTokens, ...attentionOf(shape), firstPosition: 0, segments })
  }

  positions(head: number): number[] {
    const { positions, lengths, window } = this.#state.view
    const start = head * window
    return Array.from(positions.subarray(start, start + (lengths[head] as number))).sort((a, b) => a - b)
  }

  info(): CacheInfo {
    const keptTokens = Math.max(...this.#state.view.lengths)
    return {
      keptTokens,
      seenTokens: this.#seen,
      capacityUtilization: keptTokens / this.#options.window,
      bytes: this.#store.bytes + (this.#bias?.byteLength ?? 0),
      fullBytes: this.#seen * bytesPerToken(this.#options, this.#bias !== undefined),
      evictedTokens: this.#seen - keptTokens,
    }
  }

  reset(): void {
    this.#state.reset()
    this.#seen = 0
  }

  fork(): BoundedCache {
    const copy = new BoundedCache(this.#options, this.#bias !== undefined)
    copy.#store.copyFrom(this.#store, this.#state.view.lengths)
    copy.#state.copyFrom(this.#state)
    if (this.#bias) copy.#bias?.f32.set(this.#bias.f32)
    copy.#seen = this.#seen
    return copy
  }

  dispose(): void {
    this.#store.free()
    this.#state.free()
    this.#bias?.free()
  }
}
