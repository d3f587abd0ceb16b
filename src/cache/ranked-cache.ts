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
  bytesOfTokens,
  checkInput,
  createStore,
  type LayerConfig,
  type Queries,
  tokenOf,
  visitConfig,
} from './layout.ts'
import { PositionAxis } from './position-axis.ts'
import { QueryRecord } from './query-record.ts'
import { RankedAttention } from './ranked-attention.ts'
import { RankedRows } from './ranked-rows.ts'
import type { Retention } from './retention.ts'
import { RowIntake } from './row-intake.ts'
import { type RowLimitOptions, RowLimits } from './row-limits.ts'
import { RowRanking } from './row-ranking.ts'
import type { RowStore } from './row-store.ts'
import type { StateVisitor } from './snapshot/state.ts'

export interface RankedCacheOptions extends LayerConfig, RowLimitOptions {
  readonly retention: Retention
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
  readonly #attention: RankedAttention
  readonly #queries: QueryRecord
  readonly #log: EvictionLog
  readonly #archive: PageArchive | undefined
  readonly #limits: RowLimits
  readonly #intake: RowIntake
  readonly #ranking: RowRanking
  /** `[H]` of a single step. */
  readonly #lse: Float32Array
  #seen = 0

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
    const latest = typeof needs.mass === 'number' ? needs.mass : dynamic ? dynamicQueries : 0
    this.#options = options
    this.#hasImportance = hasImportance
    this.rotates = rotates
    // One row more than stays: a step stores its token before it ranks.
    this.#store = store ?? createStore(options, window + 1, true)
    const columns = { bias: hasImportance, mass: needs.mass === 'all' }
    this.#rows = rows ?? new RankedRows(kernels, K, this.#store.capacity, columns)
    this.#axis = rotates ? new PositionAxis(K, this.#store.capacity, isRanked, window) : undefined
    this.#attention = new RankedAttention(options, this.#rows, this.#store, this.#axis)
    // Layers that share keys and values have queries of other layers between two tokens; a token that is passed over
    // moves the ranks that earlier queries saw. What comes back for one query is not there when another is weighed.
    const isSteady = !shape.isShared && !(isRanked && hasImportance) && !options.archive
    const remembered = { config: options, store: this.#store, rows: this.#rows, attention: this.#attention }
    this.#queries = new QueryRecord(remembered, { latest, sampled: needs.queries ?? 0, isSteady })
    this.#log = new EvictionLog(options.evictionLog ?? 0)
    this.#limits = new RowLimits(options, K, retention)
    this.#lse = new Float32Array(shape.numHeads)
    this.#archive = archive ?? (options.archive && new PageArchive(options, hasImportance, options.archive))
    const places = { store: this.#store, rows: this.#rows, axis: this.#axis, archive: this.#archive }
    this.#intake = new RowIntake(options, hasImportance, places)
    const watched = { queries: this.#queries, limits: this.#limits, log: this.#log }
    this.#ranking = new RowRanking(options, { ...places, ...watched })
  }

  attend(input: LayerInput, output: Float32Array): void {
    const { numTokens } = input
    checkInput(this.#options, this.#hasImportance, input, output)
    this.#axis?.use(input.rotary)
    if (this.#options.shape.isShared) this.#compress()
    if (numTokens === 0) return
    if (this.#recalls(numTokens)) {
      this.#attendEach(input, output, (...token) => this.attend(...token))
      return
    }
    let last: (() => AttendArgs) | undefined
    if (this.#changesRanks(input)) this.#attendEach(input, output, (...token) => this.#attendChunk(...token))
    else last = this.#attendChunk(input, output)
    if (this.#options.shape.isShared) return
    this.#compress(last)
    this.#store.settle()
  }

  /** Short chunks are questions, which pages are recalled for; longer ones are read as though nothing came back. */
  #recalls(numTokens: number): boolean {
    // Other layers ask again with all tokens of a chunk.
    return this.#archive !== undefined && numTokens > 1 && numTokens <= recallingTokens && !this.#options.shape.isShared
  }

  /** Takes tokens in without attending: rankings that look at queries see those of earlier calls only. */
  append(input: Omit<LayerInput, 'query'>): void {
    checkInput(this.#options, this.#hasImportance, input)
    this.#axis?.use(input.rotary)
    if (input.numTokens === 0) return
    this.#take(input)
    this.#queries.interrupt()
    this.#compress()
  }

  /** Whether tokens are passed over within the chunk, so that each query sees other ranks. */
  #changesRanks({ importance, numTokens }: LayerInput): boolean {
    if (!this.#axis?.isRank || !this.#hasImportance || numTokens === 1) return false
    return (importance as Float32Array).includes(Number.NEGATIVE_INFINITY)
  }

  /** Token by token. */
  #attendEach(
    input: LayerInput,
    output: Float32Array,
    attend: (token: LayerInput, output: Float32Array) => void,
  ): void {
    const { shape } = this.#options
    const size = shape.numHeads * shape.valueDim
    for (let t = 0; t < input.numTokens; t++) {
      attend(tokenOf(shape, input, t), output.subarray(t * size, (t + 1) * size))
    }
  }

  /** Returns the arguments of the attention that has just been. */
  #attendChunk(input: LayerInput, output: Float32Array): () => AttendArgs {
    const { numTokens } = input
    const stepsLeft = this.#limits.stepsLeft(this.#rows.lengths)
    const firsts = this.#take(input)
    this.#queries.add(input, this.#seen - numTokens, stepsLeft)
    const lse = numTokens === 1 ? this.#lse : new Float32Array(numTokens * this.#options.shape.numHeads)
    // First, since it may move the memory that arguments are views of, as each call may.
    const recalled = this.#recalled(input)
    const leavesLogits = numTokens === 1 && recalled.length === 0
    const args = (): AttendArgs => {
      const logits = leavesLogits ? this.#queries.logits : undefined
      return this.#attention.args(input, output, { firsts, seen: this.#seen, lse, logits })
    }
    this.#options.kernels.attend(seeingToo(args(), recalled))
    this.#queries.weigh(args)
    return args
  }

  /** Returns the lengths of heads before. */
  #take(input: Omit<LayerInput, 'query'>): Int32Array {
    const firsts = this.#intake.take(input, this.#seen)
    this.#seen += input.numTokens
    return firsts
  }

  /** What the query of a single token sees besides the kept rows. */
  #recalled({ query, numTokens }: Queries): KeyValueSegment[] {
    return numTokens === 1 && this.#archive ? this.#archive.recall(query, this.#axis?.forLast(1)) : []
  }

  attendAgain(input: Queries, output: Float32Array): void {
    checkInput(this.#options, false, input, output, true)
    this.#axis?.use(input.rotary)
    const firsts = this.#attention.rowsBefore(input.numTokens, this.#seen)
    const recalled = this.#recalled(input)
    const args = this.#attention.args(input, output, { firsts, seen: this.#seen })
    this.#options.kernels.attend(seeingToo(args, recalled))
  }

  /** `last`: the attention that has just been. */
  #compress(last?: () => AttendArgs): void {
    if (!this.#ranking.compress(this.#seen, last)) return
    const { lengths } = this.#rows
    this.#store.release(lengths)
    this.#intake.fit()
    this.#axis?.apply(this.#store, lengths)
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
    this.#intake.fit()
    this.#rows.visitState(visitor, lengths, this.#seen)
    this.#limits.visitState(visitor)
    this.#axis?.visitState(visitor, lengths)
    this.#queries.visitState(visitor)
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
    this.#intake.fit()
    this.#axis?.reset()
    this.#queries.clear()
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
    copy.#queries.copyFrom(this.#queries)
    copy.#log.copyFrom(this.#log)
    copy.#limits.copyFrom(this.#limits)
    copy.#seen = this.#seen
    return copy
  }

  dispose(): void {
    this.#store.free()
    this.#rows.free()
    this.#queries.free()
    this.#archive?.dispose()
  }
}

function seeingToo(args: AttendArgs, others: readonly KeyValueSegment[]): AttendArgs {
  return others.length === 0 ? args : { ...args, segments: [...args.segments, ...others] }
}
