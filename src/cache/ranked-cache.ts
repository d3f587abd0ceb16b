/**
 * One layer of one sequence whose rows are ranked anew when a head has more of them than it may: for scores that change
 * as tokens come, and for budgets that heads share. Tokens of a chunk see each other before anything is evicted, so what
 * stays depends on where chunks end (docs/caches.md says how).
 */
import type { AttendArgs, KeyValueSegment } from '../kernels/index.ts'
import type { CacheInfo, LayerCache, LayerExplanation, LayerInput } from './contract.ts'
import { EvictionLog, scoreOf } from './eviction-log.ts'
import { type ArchiveOptions, PageArchive, recallingTokens } from './hierarchical/page-archive.ts'
import {
  attentionOf,
  bytesOfTokens,
  checkInput,
  checkScores,
  createStore,
  type LayerConfig,
  type Queries,
  tokenOf,
  visitConfig,
} from './layout.ts'
import { MassTally } from './mass-tally.ts'
import { PositionAxis } from './position-axis.ts'
import { QueryRing, QuerySampler } from './query-ring.ts'
import { RankedRows } from './ranked-rows.ts'
import type { KeptRows, Retention } from './retention.ts'
import { type RowLimitOptions, RowLimits } from './row-limits.ts'
import { RowProducts } from './row-products.ts'
import { type RowList, type RowStore, weighRows } from './row-store.ts'
import { RowsView } from './rows-view.ts'
import { ScratchFloats } from './scratch-floats.ts'
import { selectRows } from './selection.ts'
import type { StateVisitor } from './snapshot/state.ts'

export interface RankedCacheOptions extends LayerConfig, RowLimitOptions {
  readonly retention: Retention
  readonly layer: number
  /** Evicted tokens come back by page; not with positions by rank. */
  readonly archive?: ArchiveOptions
}

/** Queries whose attention decides how large a dynamic window is, where the policy asks for none itself. */
const dynamicQueries = 16

export class RankedCache implements LayerCache {
  readonly dependsOnChunks = true
  readonly rotates: boolean
  readonly #options: RankedCacheOptions
  readonly #hasImportance: boolean
  readonly #store: RowStore
  readonly #rows: RankedRows
  readonly #axis: PositionAxis | undefined
  readonly #ring: QueryRing | undefined
  readonly #sampler: QuerySampler | undefined
  readonly #log: EvictionLog
  readonly #archive: PageArchive | undefined
  readonly #limits: RowLimits
  /** The single-token step reuses these. */
  readonly #single: Append & { readonly lse: Float32Array }
  /** `[K]`: rows to make room for. */
  readonly #needed: Int32Array
  /** The last queries before a ranking, where policies look at them. */
  readonly #tally: MassTally | undefined
  /** `[H, C]` of a single step. */
  readonly #logits: ScratchFloats
  #seen = 0
  /** How many queries are behind what `mass` holds. */
  readonly #massQueries: number

  constructor(
    options: RankedCacheOptions,
    hasImportance: boolean,
    store?: RowStore,
    rows?: RankedRows,
    archive?: PageArchive,
  ) {
    const { kernels, shape, retention, window, rotates = false, isRanked = false, dynamic } = options
    const K = shape.numKvHeads
    const needs = retention.kind === 'rescoring' ? retention.needs : {}
    const queries = typeof needs.mass === 'number' ? needs.mass : dynamic ? dynamicQueries : 0
    this.#options = options
    this.#hasImportance = hasImportance
    this.rotates = rotates
    // One row more than stays: a step stores its token before it ranks.
    this.#store = store ?? createStore(options, window + 1, true)
    const columns = { bias: hasImportance, mass: needs.mass === 'all' }
    this.#rows = rows ?? new RankedRows(kernels, K, this.#store.capacity, columns)
    this.#axis = rotates ? new PositionAxis(K, this.#store.capacity, isRanked, window) : undefined
    this.#ring = queries > 0 ? new QueryRing(queries, shape.numHeads * shape.headDim) : undefined
    this.#sampler = needs.queries ? new QuerySampler(needs.queries, shape.numHeads * shape.headDim) : undefined
    this.#log = new EvictionLog(options.evictionLog ?? 0)
    this.#limits = new RowLimits(options, K)
    this.#massQueries = queries
    this.#single = { ...createAppend(K, 1), lse: new Float32Array(shape.numHeads) }
    this.#needed = new Int32Array(K)
    // Layers that share keys and values have queries of other layers between two tokens; a token that is passed over
    // moves the ranks that earlier queries saw.
    const isSteady = !shape.isShared && !(isRanked && hasImportance)
    this.#tally = queries > 0 && isSteady ? new MassTally(kernels, K, queries) : undefined
    this.#logits = new ScratchFloats(kernels)
    this.#archive = archive ?? (options.archive && new PageArchive(options, hasImportance, options.archive))
  }

  attend(input: LayerInput, output: Float32Array): void {
    const { numTokens } = input
    checkInput(this.#options, this.#hasImportance, input, output)
    this.#axis?.use(input.rotary)
    if (this.#options.shape.isShared) this.#compress()
    if (numTokens === 0) return
    if (this.#recalls(numTokens)) {
      this.#attendSteps(input, output)
      return
    }
    const args = this.#changesRanks(input) ? this.#attendSingly(input, output) : this.#attendChunk(input, output)
    if (this.#options.shape.isShared) return
    this.#compress(args)
    this.#store.settle()
  }

  /** Short chunks are questions, which pages are recalled for; longer ones are read as though nothing came back. */
  #recalls(numTokens: number): boolean {
    // Other layers ask again with all tokens of a chunk.
    return this.#archive !== undefined && numTokens > 1 && numTokens <= recallingTokens && !this.#options.shape.isShared
  }

  #attendSteps(input: LayerInput, output: Float32Array): void {
    const { shape } = this.#options
    const size = shape.numHeads * shape.valueDim
    for (let t = 0; t < input.numTokens; t++) {
      this.attend(tokenOf(shape, input, t), output.subarray(t * size, (t + 1) * size))
    }
  }

  /** Takes tokens in without attending: rankings that look at queries see those of earlier calls only. */
  append(input: Omit<LayerInput, 'query'>): void {
    checkInput(this.#options, this.#hasImportance, input)
    this.#axis?.use(input.rotary)
    if (input.numTokens === 0) return
    this.#append(input)
    this.#tally?.clear()
    this.#compress()
  }

  /** Whether tokens are passed over within the chunk, so that each query sees other ranks. */
  #changesRanks({ importance, numTokens }: LayerInput): boolean {
    if (!this.#axis?.isRank || !this.#hasImportance || numTokens === 1) return false
    return (importance as Float32Array).includes(Number.NEGATIVE_INFINITY)
  }

  #attendSingly(input: LayerInput, output: Float32Array): undefined {
    const { shape } = this.#options
    const size = shape.numHeads * shape.valueDim
    for (let t = 0; t < input.numTokens; t++) {
      this.#attendChunk(tokenOf(shape, input, t), output.subarray(t * size, (t + 1) * size))
    }
  }

  /** Returns the arguments of the attention that has just been. */
  #attendChunk(input: LayerInput, output: Float32Array): () => AttendArgs {
    const { numTokens, query } = input
    const stepsLeft = this.#tally ? this.#limits.stepsLeft(this.#rows.lengths) : 0
    const firsts = this.#append(input)
    if (numTokens > 1) this.#tally?.clear()
    const isTallied = numTokens === 1 && this.#tally?.counts(stepsLeft, this.#store.capacity)
    this.#ring?.add(query, numTokens)
    this.#sampler?.add(query, numTokens, this.#seen - numTokens)
    const lse = numTokens === 1 ? this.#single.lse : new Float32Array(numTokens * this.#options.shape.numHeads)
    // Arguments are made for each call: one call may move the memory that the views of the next one are of.
    const args = (): AttendArgs => this.#attendArgs(input, output, firsts, lse)
    const { kernels } = this.#options
    const { mass } = this.#rows
    // First, since it may move the memory that arguments are views of.
    const recalled = this.#recalled(input)
    const leavesLogits = numTokens === 1 && recalled.length === 0 && (mass || isTallied)
    const kept = () => (leavesLogits ? this.#withLogits(args()) : args())
    kernels.attend(seeingToo(kept(), recalled))
    if (mass) weighRows(kernels, this.#store, kept(), mass.values)
    if (this.#tally && isTallied) weighRows(kernels, this.#store, kept(), this.#tally.values)
    return args
  }

  /** What the query of a single token sees besides the kept rows. */
  #recalled({ query, numTokens }: Queries): KeyValueSegment[] {
    return numTokens === 1 && this.#archive ? this.#archive.recall(query, this.#axis?.forLast(1)) : []
  }

  /** A query that leaves its logits is weighed without products of its own. */
  #withLogits(args: AttendArgs): AttendArgs {
    if (args.segments.length !== 1) return args
    return { ...args, logits: this.#logits.reserve(args.numHeads * this.#store.capacity) }
  }

  attendAgain(input: Queries, output: Float32Array): void {
    checkInput(this.#options, false, input, output, true)
    this.#axis?.use(input.rotary)
    const firsts = Int32Array.from(this.#rows.lengths, (length, k) => length - this.#newRows(k, input.numTokens))
    const recalled = this.#recalled(input)
    this.#options.kernels.attend(seeingToo(this.#attendArgs(input, output, firsts), recalled))
  }

  /** Rows of a head that the last T tokens took. */
  #newRows(head: number, numTokens: number): number {
    const order = this.#rows.order(head)
    let count = 0
    while (count < order.length && this.#positionAt(head, order.length - 1 - count) >= this.#seen - numTokens) count++
    return count
  }

  #positionAt(head: number, n: number): number {
    return this.#rows.position(head, this.#rows.order(head)[n] as number)
  }

  /** Stores new tokens behind what is there; those of importance -Infinity are passed over. Returns the old lengths. */
  #append(input: Omit<LayerInput, 'query'>): Int32Array {
    const { importance, numTokens } = input
    const { shape } = this.#options
    const K = shape.numKvHeads
    const scores = this.#staticScores(input)
    const { firsts, list } = numTokens === 1 ? this.#single : createAppend(K, numTokens)
    firsts.set(this.#rows.lengths)
    for (let k = 0; k < K; k++) this.#needed[k] = (firsts[k] as number) + numTokens
    this.#store.reserve(this.#needed, numTokens)
    this.#resize()
    list.counts.fill(0)
    const turn = this.#axis?.forNext(numTokens)
    this.#axis?.advance(numTokens)
    this.#archive?.add(input, turn)
    for (let k = 0; k < K; k++) {
      for (let t = 0; t < numTokens; t++) {
        const bias = importance?.[t * K + k] ?? 0
        if (bias === Number.NEGATIVE_INFINITY && this.#hasImportance) {
          this.#archive?.leave(k, this.#seen + t)
          continue
        }
        const n = k * numTokens + (list.counts[k] as number)
        list.tokens[n] = t
        list.slots[n] = this.#rows.lengths[k] as number
        this.#axis?.place(k, list.slots[n] as number, numTokens - t)
        this.#rows.add(k, this.#seen + t, scores ? (scores[t * K + k] as number) : Number.NaN, bias)
        list.counts[k] = (list.counts[k] as number) + 1
      }
    }
    this.#store.write(input, list, turn)
    this.#seen += numTokens
    if (this.#hasImportance) for (let k = 0; k < K; k++) this.#axis?.renumber(k, this.#rows.order(k))
    this.#axis?.apply(this.#store, this.#rows.lengths)
    return firsts
  }

  #staticScores({ key, value, importance, numTokens }: Omit<LayerInput, 'query'>): Float32Array | undefined {
    const { retention, shape, layer } = this.#options
    if (retention.kind !== 'static') return undefined
    if (retention.rankBy === 'importance') return importance
    const { numKvHeads, headDim, valueDim } = shape
    const scores = new Float32Array(numTokens * numKvHeads)
    if (retention.rankBy === 'recency') return scores
    const sizes = { layer, numTokens, numKvHeads, headDim, valueDim, firstPosition: this.#seen }
    retention.rankBy({ ...sizes, key, value, importance }, scores)
    checkScores(scores)
    return scores
  }

  #resize(): void {
    this.#rows.resize(this.#store.capacity)
    this.#axis?.resize(this.#store.capacity, this.#rows.lengths)
  }

  /** The last T tokens over all rows: those from firsts[k] on are seen from their own token on. */
  #attendArgs({ query, numTokens }: Queries, output: Float32Array, firsts: Int32Array, lse?: Float32Array): AttendArgs {
    const births = numTokens > 1 ? this.#births(firsts, numTokens, this.#store.capacity) : undefined
    const segments = this.#segments(this.#seen - numTokens, births)
    const common = { query, output, lse, numTokens, ...attentionOf(this.#options), firstPosition: 0 }
    return { ...common, rotation: this.#axis?.forLast(numTokens), segments }
  }

  /** @param first position of the first query, for ALiBi's distances */
  #segments(first: number, births: Int32Array | undefined): KeyValueSegment[] {
    const facts = { origin: first, births, bias: this.#rows.bias?.values }
    if (!this.#options.shape.alibiSlopes) return this.#store.segments(this.#rows.lengths, facts)
    const { capacity } = this.#store
    const positions = new Int32Array(this.#rows.lengths.length * capacity)
    this.#each((k, row) => {
      positions[k * capacity + row] = this.#rows.position(k, row) - first
    })
    return this.#store.segments(this.#rows.lengths, { ...facts, positions })
  }

  #births(firsts: Int32Array, numTokens: number, capacity: number): Int32Array {
    const births = new Int32Array(firsts.length * capacity)
    const first = this.#seen - numTokens
    for (const [k, from] of firsts.entries()) {
      for (let row = from; row < (this.#rows.lengths[k] as number); row++) {
        births[k * capacity + row] = this.#rows.position(k, row) - first
      }
    }
    return births
  }

  #each(visit: (head: number, row: number) => void): void {
    for (const [k, length] of this.#rows.lengths.entries()) for (let row = 0; row < length; row++) visit(k, row)
  }

  /** Ranks and evicts where there are too many rows. `last`: the attention that has just been. */
  #compress(last?: () => AttendArgs): void {
    const { window, safeguard, dynamic } = this.#options
    const { lengths } = this.#rows
    if (!this.#limits.isDue(lengths)) return
    const mass = this.#ring && this.#recentMass(last)
    const view = this.#view(mass?.values, mass?.count ?? 0)
    const ranked = this.#rank(view)
    const massesOf = () => ranked.map((_, k) => view.inOrder(k, mass?.values as Float32Array))
    const kept = selectRows(ranked, this.#limits.adapt(ranked, massesOf))
    for (const [k, flags] of kept.entries()) {
      const isKeptWhole = safeguard === undefined && !dynamic && (lengths[k] as number) <= window
      if (!isKeptWhole) this.#evict(k, flags)
    }
    this.#tally?.clear()
    this.#store.release(lengths)
    this.#resize()
    this.#axis?.apply(this.#store, lengths)
  }

  #rank(view: RowsView): { positions: Float64Array; scores: Float64Array }[] {
    const { retention } = this.#options
    const ranked = Array.from(this.#rows.lengths, (_, k) => ({ positions: view.positions(k), scores: view.earlier(k) }))
    if (retention.kind === 'static') return ranked
    retention.rescore(
      view,
      ranked.map(({ scores }) => scores),
    )
    for (const [k, { scores }] of ranked.entries()) this.#rows.setScores(k, scores)
    return ranked
  }

  #view(recentMass: Float32Array | undefined, massQueries: number): RowsView {
    const { shape, sinks, recent } = this.#options
    const { numHeads, numKvHeads, headDim, valueDim } = shape
    const sizes = { numKvHeads, group: numHeads / numKvHeads, headDim, valueDim, sinks, recent, massQueries }
    const sample = this.#sampler?.sample((length) => this.#axis?.meanRotation(length))
    const facts: Omit<KeptRows, 'positions' | 'keys' | 'values' | 'mass' | 'earlier'> = {
      ...{ ...sizes, seenTokens: this.#seen, sample, dense: new RowProducts(this.#options.kernels) },
    }
    return new RowsView(facts, this.#rows, this.#store, this.#rows.mass?.values ?? recentMass)
  }

  /** What attention each row got from the last queries, `[K, C]`. */
  #recentMass(last: (() => AttendArgs) | undefined): { values: Float32Array; count: number } {
    const { kernels, shape } = this.#options
    const ring = this.#ring as QueryRing
    if (this.#tally?.isComplete) return { values: this.#tally.values, count: this.#massQueries }
    const values = new Float32Array(this.#rows.lengths.length * this.#store.capacity)
    const args = last?.()
    if (args && args.numTokens >= this.#massQueries) {
      const firstToken = args.numTokens - this.#massQueries
      weighRows(kernels, this.#store, { ...args, firstToken }, values)
      return { values, count: this.#massQueries }
    }
    const numTokens = ring.count
    if (numTokens === 0) return { values, count: 0 }
    const first = this.#seen - numTokens
    const capacity = this.#store.capacity
    const births = new Int32Array(values.length)
    this.#each((k, row) => {
      births[k * capacity + row] = Math.max(0, this.#rows.position(k, row) - first)
    })
    const scratch = {
      ...{ query: ring.latest(), output: new Float32Array(numTokens * shape.numHeads * shape.valueDim), numTokens },
      ...{ lse: new Float32Array(numTokens * shape.numHeads), ...attentionOf(this.#options), firstPosition: 0 },
      rotation: this.#axis?.forLast(numTokens),
    }
    kernels.attend({ ...scratch, segments: this.#segments(first, births) })
    weighRows(kernels, this.#store, { ...scratch, segments: this.#segments(first, births) }, values)
    return { values, count: numTokens }
  }

  #evict(head: number, flags: Uint8Array): void {
    const order = this.#rows.order(head)
    for (let n = 0; n < order.length; n++) {
      if (flags[n]) continue
      const row = order[n] as number
      this.#log.add(head, this.#rows.position(head, row), this.#rows.score(head, row), this.#seen)
      this.#archive?.leave(head, this.#rows.position(head, row))
    }
    this.#rows.keep(head, flags, (from, to) => {
      this.#store.move(head, from, to)
      this.#axis?.move(head, from, to)
    })
    this.#axis?.renumber(head, this.#rows.order(head))
  }

  positions(head: number): number[] {
    return Array.from(this.#rows.order(head), (row) => this.#rows.position(head, row))
  }

  info(): CacheInfo {
    const keptTokens = Math.max(...this.#rows.lengths)
    return {
      keptTokens,
      seenTokens: this.#seen,
      capacityUtilization:
        this.#rows.lengths.reduce((a, b) => a + b, 0) / (this.#rows.lengths.length * this.#options.window),
      bytes: this.#store.bytes + this.#rows.bytes + (this.#archive?.bytes ?? 0),
      fullBytes: bytesOfTokens(this.#options, this.#seen, this.#hasImportance),
      evictedTokens: this.#seen - keptTokens,
    }
  }

  explain(): LayerExplanation {
    const heads = Array.from(this.#rows.lengths, (_, k) => ({
      positions: this.positions(k),
      scores: Array.from(this.#rows.order(k), (row) => scoreOf(this.#rows.score(k, row))),
    }))
    return { heads, evicted: this.#log.entries, ...(this.#archive && { recall: this.#archive.counts }) }
  }

  visitState(visitor: StateVisitor): void {
    const { window, sinks, recent, interval, safeguard = 'none', dynamic, retention } = this.#options
    visitor.fixed('cache', 'ranked')
    visitConfig(visitor, this.#options)
    const rules = { window, sinks, recent, interval, safeguard, ranking: retention.kind }
    for (const [name, value] of Object.entries(rules)) visitor.fixed(name, value)
    visitor.fixed('least window', dynamic?.least ?? 'none')
    visitor.fixed('importance', this.#hasImportance)
    this.#seen = visitor.integer('tokens', this.#seen, 0)
    const lengths = this.#rows.lengths.slice()
    visitor.integers('rows', lengths, 0, Math.min(this.#seen, 2 ** 31 - 1))
    this.#store.visitRows(visitor, lengths)
    this.#resize()
    this.#rows.visitState(visitor, lengths, this.#seen)
    this.#limits.visitState(visitor)
    this.#axis?.visitState(visitor, lengths)
    this.#ring?.visitState(visitor)
    this.#tally?.visitState(visitor, lengths, this.#store.capacity)
    this.#sampler?.visitState(visitor)
    this.#log.visitState(visitor)
    visitor.fixed('recalls', this.#archive !== undefined)
    this.#archive?.visitState(visitor, (head) => this.positions(head))
  }

  checkIntegrity(): void {
    this.#store.checkIntegrity()
  }

  reset(): void {
    this.#rows.clear()
    this.#store.release(this.#rows.lengths)
    this.#store.rewind(0)
    this.#resize()
    this.#axis?.reset()
    this.#ring?.clear()
    this.#tally?.clear()
    this.#sampler?.clear()
    this.#log.clear()
    this.#archive?.reset()
    this.#limits.reset()
    this.#seen = 0
  }

  fork(): RankedCache {
    const store = this.#store.fork(this.#rows.lengths)
    const [rows, archive] = [this.#rows.fork(store.capacity), this.#archive?.fork()]
    const copy = new RankedCache(this.#options, this.#hasImportance, store, rows, archive)
    if (this.#axis) copy.#axis?.copyFrom(this.#axis)
    copy.#axis?.resize(store.capacity, this.#rows.lengths)
    if (this.#ring) copy.#ring?.copyFrom(this.#ring)
    if (this.#tally) copy.#tally?.copyFrom(this.#tally)
    if (this.#sampler) copy.#sampler?.copyFrom(this.#sampler)
    copy.#log.copyFrom(this.#log)
    copy.#limits.copyFrom(this.#limits)
    copy.#seen = this.#seen
    return copy
  }

  dispose(): void {
    this.#store.free()
    this.#rows.free()
    this.#tally?.free()
    this.#logits.free()
    this.#archive?.dispose()
  }
}

function seeingToo(args: AttendArgs, others: readonly KeyValueSegment[]): AttendArgs {
  return others.length === 0 ? args : { ...args, segments: [...args.segments, ...others] }
}

/** Where new tokens go: the lengths of heads before them, and their rows. */
interface Append {
  /** `[K]` */
  readonly firsts: Int32Array
  readonly list: RowList
}

function createAppend(numKvHeads: number, numTokens: number): Append {
  const size = numKvHeads * numTokens
  const list = { counts: new Int32Array(numKvHeads), tokens: new Int32Array(size), slots: new Int32Array(size) }
  return { firsts: new Int32Array(numKvHeads), list: { ...list, stride: numTokens } }
}
