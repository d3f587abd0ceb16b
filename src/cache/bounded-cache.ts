/**
 * One layer of one sequence in a fixed number of rows: for each KV head, W tokens of the stream, chosen by a static
 * score (docs/caches.md). An evicted token can never come back, so every key has one lifetime and a chunk of T tokens
 * gives what T single tokens give: old rows live until their death, new tokens from birth to death.
 */
import type { KeepArgs, KeyValueSegment, Memory, Rotation, RowTarget } from '../kernels/index.ts'
import { KvasirError } from '../tensor/error.ts'
import type { CacheInfo, LayerCache, LayerExplanation, LayerInput, ScoreTokens } from './contract.ts'
import { type ArchiveOptions, PageArchive, recallingTokens } from './hierarchical/page-archive.ts'
import { KeptHistory } from './kept-history.ts'
import { createPlan, KeptState, type RetainPlan } from './kept-state.ts'
import {
  attentionOf,
  bytesOfTokens,
  checkInput,
  createStore,
  headMajor,
  type LayerConfig,
  type Queries,
  tokenOf,
  visitConfig,
} from './layout.ts'
import { PositionAxis } from './position-axis.ts'
import { appendedRows, type RowFacts, type RowStore } from './row-store.ts'
import type { StateVisitor } from './snapshot/state.ts'

export interface BoundedCacheOptions extends LayerConfig {
  /** W */
  readonly window: number
  readonly sinks: number
  readonly recent: number
  /** What ranks tokens: the model's importance, a score, or nothing, so that the newer wins every tie. */
  readonly rankBy: 'importance' | 'recency' | ScoreTokens
  /** Whether importance is added to the logits (default true). */
  readonly addImportance?: boolean
  /** Evicted tokens come back by page; not for layers that rotate. */
  readonly archive?: ArchiveOptions
  /** Number of the layer, for scores that depend on it (default 0). */
  readonly layer?: number
}

type NewInput = Omit<LayerInput, 'query'>

export class BoundedCache implements LayerCache {
  readonly rotates: boolean
  /** Short chunks see what comes back, long ones don't. */
  readonly dependsOnChunks: boolean
  readonly #options: BoundedCacheOptions
  readonly #store: RowStore
  readonly #state: KeptState
  readonly #bias: Memory | undefined
  readonly #lengths: Int32Array
  readonly #needsImportance: boolean
  readonly #axis: PositionAxis | undefined
  readonly #history: KeptHistory | undefined
  readonly #archive: PageArchive | undefined
  /** The single-token step reuses these, so that it allocates nothing that lasts. */
  readonly #step: RetainPlan
  /** Scores of one token: where recency ranks, all the same. */
  readonly #scores: Float32Array
  readonly #attention: ReturnType<typeof attentionOf>
  #seen = 0

  constructor(options: BoundedCacheOptions, hasImportance: boolean, store?: RowStore, archive?: PageArchive) {
    const { kernels, shape, window, rotates = false, isRanked = false, evictionLog = 0 } = options
    const K = shape.numKvHeads
    this.#options = options
    this.rotates = rotates
    this.#store = store ?? createStore(options, window)
    // By age nothing competes: a ring finds the oldest without a heap.
    this.#state = new KeptState(options.rankBy === 'recency' ? { ...options, recent: window - options.sinks } : options)
    const usesBias = hasImportance && options.addImportance !== false
    this.#bias = usesBias ? kernels.alloc(K * window * 4) : undefined
    this.#needsImportance = usesBias || options.rankBy === 'importance'
    this.#lengths = new Int32Array(K)
    this.#step = createPlan(K, window, 1)
    this.#scores = new Float32Array(K)
    this.#attention = attentionOf(options)
    this.#axis = rotates ? new PositionAxis(K, window, isRanked, window) : undefined
    this.#archive = archive ?? (options.archive && new PageArchive(options, usesBias, options.archive))
    this.dependsOnChunks = this.#archive !== undefined
    const isWatched = isRanked || evictionLog > 0 || this.#archive !== undefined
    this.#history = isWatched ? new KeptHistory(K, window, evictionLog) : undefined
  }

  attend(input: LayerInput, output: Float32Array): void {
    const { numTokens } = input
    this.#check(input, output)
    if (numTokens === 0) return
    if (numTokens === 1) this.#attendOne(input, output)
    else if (this.#changesRanks(input) || this.#recalls(numTokens)) this.#attendSingly(input, output)
    else this.#attendChunk(input, output)
  }

  /** Short chunks are questions, which pages are recalled for; longer ones are read as though nothing came back. */
  #recalls(numTokens: number): boolean {
    return this.#archive !== undefined && numTokens <= recallingTokens
  }

  /** Takes tokens in without attending. */
  append(input: NewInput): void {
    this.#check(input)
    if (input.numTokens === 0) return
    const isSingle = input.numTokens > 1 && this.#changesRanks(input)
    if (!isSingle) this.#take(input)
    for (let t = 0; isSingle && t < input.numTokens; t++) this.#take(tokenOf(this.#options.shape, input, t))
  }

  #check(input: NewInput & { readonly query?: Float32Array }, output?: Float32Array): void {
    checkInput(this.#options, this.#needsImportance, input, output)
    this.#axis?.use(input.rotary)
  }

  /** Whether distances between kept tokens change within the chunk, so that each query sees other rotations. */
  #changesRanks({ importance, numTokens }: NewInput): boolean {
    const { window, rankBy } = this.#options
    if (!this.#axis?.isRank) return false
    if (Math.max(...this.#state.view.lengths) + numTokens > window || typeof rankBy === 'function') return true
    return rankBy === 'importance' && (importance as Float32Array).includes(Number.NEGATIVE_INFINITY)
  }

  #attendSingly(input: LayerInput, output: Float32Array): void {
    const { shape } = this.#options
    const size = shape.numHeads * shape.valueDim
    for (let t = 0; t < input.numTokens; t++) {
      this.#attendOne(tokenOf(shape, input, t) as LayerInput, output.subarray(t * size, (t + 1) * size))
    }
  }

  #take(input: NewInput): void {
    const { shape, window } = this.#options
    const plan = input.numTokens === 1 ? this.#step : createPlan(shape.numKvHeads, window, input.numTokens)
    this.#reserve(input.numTokens)
    const turn = this.#axis?.forNext(input.numTokens)
    const targets = this.#store.targets?.(input, turn)
    if (targets) {
      this.#options.kernels.keep(this.#retainArgs(input, plan, targets))
    } else {
      this.#options.kernels.retain(this.#retainArgs(input, plan))
      this.#store.write(input, plan, turn)
    }
    this.#seen += input.numTokens
    this.#commit(input, plan)
  }

  /** What can run out of memory comes before what changes the kept set. */
  #reserve(numTokens: number): void {
    const { window } = this.#options
    const { lengths } = this.#state.view
    for (let k = 0; k < lengths.length; k++) {
      this.#lengths[k] = Math.min(window, (lengths[k] as number) + numTokens)
    }
    this.#store.reserve(this.#lengths, numTokens)
  }

  /** Decode: the cache is brought up to date first, then holds exactly what the new token sees. */
  #attendOne(input: LayerInput, output: Float32Array): void {
    this.#take(input)
    this.#attendKept(input, output)
  }

  #attendKept(input: Queries, output: Float32Array): void {
    // First, since it may move the memory that segments are views of.
    const recalled = this.#archive?.recall(input.query) ?? []
    const segments = this.#segments(this.#state.view.lengths, this.#seen - 1, this.#distances(this.#seen - 1))
    if (recalled.length > 0) segments.push(...recalled)
    this.#runAttention(input, output, segments, this.#axis?.forLast(1))
  }

  attendAgain(input: Queries, output: Float32Array): void {
    checkInput(this.#options, false, input, output, true)
    this.#axis?.use(input.rotary)
    if (input.numTokens === 1) {
      this.#attendKept(input, output)
      return
    }
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
    this.#reserve(numTokens)
    this.#lengths.set(this.#state.view.lengths)
    const distances = this.#distances(this.#seen)
    const plan = createPlan(shape.numKvHeads, window, numTokens)
    const turn = this.#axis?.forNext(numTokens)
    const chunk = createStore(
      { ...this.#options, pool: undefined, residualPool: undefined, isRanked: false },
      numTokens,
    )
    try {
      const rows = appendedRows(new Int32Array(shape.numKvHeads), numTokens)
      chunk.write(input, rows, turn)
      this.#options.kernels.retain(this.#retainArgs(input, plan))
      this.#seen += numTokens
      const bias = this.#bias && headMajor(input.importance, shape.numKvHeads, numTokens)
      const lives = { births: rows.tokens, deaths: plan.tokenDeaths }
      const fresh = chunk.segments(rows.counts, { bias, firstPosition: 0, ...lives, origin: 0 })
      const first = this.#seen - numTokens
      const old = this.#segments(this.#lengths, first, { ...distances, deaths: plan.rowDeaths })
      this.#runAttention(input, output, [...old, ...fresh], turn)
    } finally {
      chunk.free()
    }
    this.#store.write(input, plan, turn)
    this.#commit(input, plan)
  }

  /** @param origin position of the first query */
  #segments(
    lengths: Int32Array,
    origin: number,
    { positions, deaths }: Pick<RowFacts, 'positions' | 'deaths'>,
  ): KeyValueSegment[] {
    return this.#store.segments(lengths, { bias: this.#bias?.f32, positions, deaths, origin })
  }

  #retainArgs(input: NewInput, plan: RetainPlan, targets: RowTarget[] = []): KeepArgs {
    const { rowDeaths, tokenDeaths, counts, tokens, slots } = plan
    return {
      kept: this.#state.view,
      scores: this.#scoresOf(input),
      numTokens: input.numTokens,
      firstPosition: this.#seen,
      rowDeaths,
      tokenDeaths,
      counts,
      tokens,
      slots,
      targets,
    }
  }

  #scoresOf({ key, value, importance, numTokens }: NewInput): Float32Array {
    const { rankBy, shape, layer = 0 } = this.#options
    if (rankBy === 'importance') return importance as Float32Array
    const scores = numTokens === 1 ? this.#scores : new Float32Array(numTokens * shape.numKvHeads)
    if (rankBy === 'recency') return scores
    const { numKvHeads, headDim, valueDim } = shape
    const sizes = { layer, numTokens, numKvHeads, headDim, valueDim, firstPosition: this.#seen }
    rankBy({ ...sizes, key, value, importance }, scores)
    return scores
  }

  /** What follows from what stays of new tokens, which is stored by now, and from what leaves. */
  #commit(input: NewInput, plan: RetainPlan): void {
    const { importance, numTokens } = input
    const firstPosition = this.#seen - numTokens
    this.#archive?.add(input)
    this.#axis?.advance(numTokens)
    if (this.#bias && importance) this.#noteBias(this.#bias.f32, importance, plan)
    if (this.#axis?.isRank) this.#place(this.#axis, numTokens, plan)
    this.#history?.record(this.#state.view, plan, { firstPosition, numTokens }, this.#axis, this.#archive)
    this.#axis?.apply(this.#store, this.#state.view.lengths)
    this.#store.settle()
  }

  #noteBias(bias: Float32Array, importance: Float32Array, { counts, tokens, slots, stride }: RetainPlan): void {
    const { window } = this.#options
    for (let k = 0; k < counts.length; k++) {
      for (let n = k * stride; n < k * stride + (counts[k] as number); n++) {
        bias[k * window + (slots[n] as number)] = importance[(tokens[n] as number) * counts.length + k] as number
      }
    }
  }

  #place(axis: PositionAxis, numTokens: number, { counts, tokens, slots, stride }: RetainPlan): void {
    for (let k = 0; k < counts.length; k++) {
      for (let n = k * stride; n < k * stride + (counts[k] as number); n++) {
        axis.place(k, slots[n] as number, numTokens - (tokens[n] as number))
      }
    }
  }

  #runAttention(
    { query, numTokens }: Queries,
    output: Float32Array,
    segments: KeyValueSegment[],
    rotation: Rotation | undefined,
  ): void {
    const { kernels } = this.#options
    kernels.attend({ ...this.#attention, query, output, numTokens, firstPosition: 0, rotation, segments })
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
      bytes: this.#store.bytes + (this.#bias?.byteLength ?? 0) + (this.#archive?.bytes ?? 0),
      fullBytes: bytesOfTokens(this.#options, this.#seen, this.#bias !== undefined),
      evictedTokens: this.#seen - keptTokens,
    }
  }

  explain(): LayerExplanation {
    const { positions, scores, lengths, window } = this.#state.view
    const isByAge = this.#options.rankBy === 'recency'
    const heads = Array.from(lengths, (length, k) => {
      const rows = Array.from({ length }, (_, row) => k * window + row)
      rows.sort((a, b) => (positions[a] as number) - (positions[b] as number))
      return {
        positions: rows.map((at) => positions[at] as number),
        scores: rows.map((at) => (isByAge ? null : (scores[at] as number))),
      }
    })
    const recall = this.#archive && { recall: this.#archive.counts }
    return { heads, evicted: this.#history?.evictions(isByAge) ?? [], ...recall }
  }

  visitState(visitor: StateVisitor): void {
    const { rankBy, window } = this.#options
    visitor.fixed('cache', 'bounded')
    visitConfig(visitor, this.#options)
    visitor.fixed('ranked by', typeof rankBy === 'function' ? 'score' : rankBy)
    visitor.fixed('importance', this.#bias !== undefined)
    this.#seen = visitor.integer('tokens', this.#seen, 0)
    this.#state.visitState(visitor, this.#seen)
    const { lengths } = this.#state.view
    this.#store.visitRows(visitor, lengths)
    for (let k = 0; this.#bias && k < lengths.length; k++) {
      visitor.numbers(this.#bias.f32.subarray(k * window, k * window + (lengths[k] as number)))
    }
    this.#axis?.visitState(visitor, lengths)
    this.#history?.visitState(visitor, this.#state.view)
    visitor.fixed('recalls', this.#archive !== undefined)
    this.#archive?.visitState(visitor, (head) => this.positions(head))
  }

  checkIntegrity(): void {
    this.#store.checkIntegrity()
  }

  reset(): void {
    this.#state.reset()
    this.#store.release(this.#state.view.lengths)
    this.#store.rewind(0)
    this.#axis?.reset()
    this.#history?.clear()
    this.#archive?.reset()
    this.#seen = 0
  }

  fork(): BoundedCache {
    const store = this.#store.fork(this.#state.view.lengths)
    const copy = new BoundedCache(this.#options, this.#bias !== undefined, store, this.#archive?.fork())
    copy.#state.copyFrom(this.#state)
    if (this.#bias) copy.#bias?.f32.set(this.#bias.f32)
    if (this.#axis) copy.#axis?.copyFrom(this.#axis)
    if (this.#history) copy.#history?.copyFrom(this.#history)
    copy.#seen = this.#seen
    return copy
  }

  dispose(): void {
    this.#store.free()
    this.#archive?.dispose()
    this.#state.free()
    this.#bias?.free()
  }
}
