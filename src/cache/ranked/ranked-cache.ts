/**
 * One layer of one sequence whose rows are ranked anew when a head has more of them than it may: for scores that change
 * as tokens come, and for budgets that heads share. Tokens of a chunk see each other before anything is evicted, so what
 * stays depends on where chunks end (docs/caches.md says how).
 */
import type { AttendArgs, KeyValueSegment } from '../../kernels/index.ts'
import type { CacheInfo, LayerCache, LayerExplanation, LayerInput } from '../contract.ts'
import { scoreOf } from '../eviction-log.ts'
import { recallingTokens } from '../hierarchical/page-archive.ts'
import { bytesOfTokens, checkInput, type Queries, tokenOf, visitConfig } from '../layout.ts'
import type { Room } from '../room.ts'
import type { StateVisitor } from '../snapshot/state.ts'
import { seeingToo } from './attention.ts'
import { checkMagnitudes, magnitudesOf } from './check-magnitudes.ts'
import { RowIntake } from './intake.ts'
import { copyRankedParts, createRankedParts, freeRankedParts, type RankedConfig, type RankedParts } from './parts.ts'
import { RowRanking } from './ranking.ts'

export class RankedCache implements LayerCache {
  readonly dependsOnChunks = true
  readonly rotates: boolean
  readonly #options: RankedConfig
  readonly #hasImportance: boolean
  readonly #parts: RankedParts
  readonly #intake: RowIntake
  readonly #ranking: RowRanking
  /** `[H]` of a single step. */
  readonly #lse: Float32Array
  /** Where rows are ranked by what comes: a static score has been checked by itself. */
  readonly #most: ReturnType<typeof magnitudesOf> | undefined
  #seen = 0

  constructor(options: RankedConfig, hasImportance: boolean, given?: Partial<RankedParts>) {
    this.#options = options
    this.#hasImportance = hasImportance
    this.rotates = options.rotates ?? false
    this.#parts = createRankedParts(options, hasImportance, given)
    this.#intake = new RowIntake(options, hasImportance, this.#parts)
    this.#ranking = new RowRanking(options, this.#parts)
    const looks = options.retention.kind === 'rescoring' || options.dynamic !== undefined
    this.#most = looks ? magnitudesOf(options, options.shape, this.rotates) : undefined
    this.#lse = new Float32Array(options.shape.numHeads)
  }

  attend(input: LayerInput, output: Float32Array): void {
    const { numTokens } = input
    this.#check(input, output)
    if (this.#options.shape.isShared) {
      this.#intake.reserve(0) // forks may have come to share rows since
      this.#compress()
    }
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
    this.#parts.store.settle()
  }

  #check(input: Partial<LayerInput>, output?: Float32Array): void {
    checkInput(this.#options, this.#hasImportance, input, output)
    if (this.#most) checkMagnitudes(input, this.#options.shape, this.#most)
    this.#parts.axis?.use(input.rotary)
  }

  /** Short chunks are questions, which pages are recalled for; longer ones are read as though nothing came back. */
  #recalls(numTokens: number): boolean {
    // Other layers ask again with all tokens of a chunk.
    return (
      this.#parts.archive !== undefined &&
      numTokens > 1 &&
      numTokens <= recallingTokens &&
      !this.#options.shape.isShared
    )
  }

  /** Takes tokens in without attending: rankings that look at queries see those of earlier calls only. */
  append(input: Omit<LayerInput, 'query'>): void {
    this.#check(input)
    if (input.numTokens === 0) return
    this.#take(input)
    this.#parts.queries.interrupt()
    this.#compress()
  }

  /** Whether tokens are passed over within the chunk, so that each query sees other ranks. */
  #changesRanks({ importance, numTokens }: LayerInput): boolean {
    if (!this.#parts.axis?.isRank || !this.#hasImportance || numTokens === 1) return false
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
    this.#intake.prepare(input, this.#seen)
    for (let t = 0; t < input.numTokens; t++) {
      attend(tokenOf(shape, input, t), output.subarray(t * size, (t + 1) * size))
    }
  }

  /** Returns the arguments of the attention that has just been. */
  #attendChunk(input: LayerInput, output: Float32Array): () => AttendArgs {
    const { numTokens } = input
    const stepsLeft = this.#parts.limits.stepsLeft(this.#parts.rows.lengths)
    const firsts = this.#take(input)
    this.#parts.queries.add(input, this.#seen - numTokens, stepsLeft)
    const lse = numTokens === 1 ? this.#lse : new Float32Array(numTokens * this.#options.shape.numHeads)
    // First, since it may move the memory that arguments are views of, as each call may.
    const recalled = this.#recalled(input)
    const leavesLogits = numTokens === 1 && recalled.length === 0
    const args = (): AttendArgs => {
      const logits = leavesLogits ? this.#parts.queries.logits : undefined
      return this.#parts.attention.args(input, output, { firsts, seen: this.#seen, lse, logits })
    }
    this.#options.kernels.attend(seeingToo(args(), recalled))
    this.#parts.queries.weigh(args)
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
    return numTokens === 1 && this.#parts.archive ? this.#parts.archive.recall(query, this.#parts.axis?.forLast(1)) : []
  }

  attendAgain(input: Queries, output: Float32Array): void {
    checkInput(this.#options, false, input, output, true)
    this.#parts.axis?.use(input.rotary)
    const [{ attention }, recalled] = [this.#parts, this.#recalled(input)]
    const firsts = attention.rowsBefore(input.numTokens, this.#seen)
    this.#options.kernels.attend(seeingToo(attention.args(input, output, { firsts, seen: this.#seen }), recalled))
  }

  /** `last`: the attention that has just been. */
  #compress(last?: () => AttendArgs): void {
    if (!this.#ranking.compress(this.#seen, last)) return
    const { store, rows, axis } = this.#parts
    axis?.apply(store, rows.lengths)
    store.release(rows.lengths)
    this.#intake.fit()
  }

  positions(head: number): number[] {
    const { rows } = this.#parts
    return Array.from(rows.order(head), (row) => rows.position(head, row))
  }

  info(): CacheInfo {
    const { store, rows, archive } = this.#parts
    const { lengths } = rows
    const keptTokens = Math.max(...lengths)
    return {
      keptTokens,
      seenTokens: this.#seen,
      capacityUtilization: lengths.reduce((a, b) => a + b, 0) / (lengths.length * this.#options.window),
      bytes: store.bytes + rows.bytes + (archive?.bytes ?? 0),
      fullBytes: bytesOfTokens(this.#options, this.#seen, this.#hasImportance),
      evictedTokens: this.#seen - keptTokens,
    }
  }

  explain(): LayerExplanation {
    const { rows, log, archive } = this.#parts
    const heads = Array.from(rows.lengths, (_, k) => {
      return { positions: this.positions(k), scores: Array.from(rows.order(k), (row) => scoreOf(rows.score(k, row))) }
    })
    return { heads, evicted: log.entries, ...(archive && { recall: archive.counts }) }
  }

  visitState(visitor: StateVisitor): void {
    const { window, sinks, recent, interval, safeguard = 'none', dynamic, retention } = this.#options
    const { store, rows, axis, queries, limits, log, archive } = this.#parts
    visitor.fixed('cache', 'ranked')
    visitConfig(visitor, this.#options)
    const rules = { window, sinks, recent, interval, safeguard, ranking: retention.kind }
    for (const [name, value] of Object.entries(rules)) visitor.fixed(name, value)
    visitor.fixed('least window', dynamic?.least ?? 'none')
    visitor.fixed('importance', this.#hasImportance)
    this.#seen = visitor.integer('tokens', this.#seen, 0)
    const lengths = rows.lengths.slice()
    visitor.integers('rows', lengths, 0, Math.min(this.#seen, 2 ** 31 - 1))
    store.visitRows(visitor, lengths)
    this.#intake.fit()
    rows.visitState(visitor, lengths, this.#seen)
    limits.visitState(visitor)
    axis?.visitState(visitor, lengths)
    queries.visitState(visitor)
    log.visitState(visitor)
    visitor.fixed('recalls', archive !== undefined)
    archive?.visitState(visitor, (head) => this.positions(head))
  }

  roomFor(numTokens: number, room: Room): void {
    this.#intake.roomFor(numTokens, room)
  }

  checkIntegrity(): void {
    this.#parts.store.checkIntegrity()
  }

  reset(): void {
    const { store, rows, axis, queries, limits, log, archive } = this.#parts
    rows.clear()
    store.release(rows.lengths)
    store.rewind(0)
    this.#intake.fit()
    axis?.reset()
    queries.clear()
    log.clear()
    archive?.reset()
    limits.reset()
    this.#seen = 0
  }

  fork(): RankedCache {
    const { rows, archive } = this.#parts
    const store = this.#parts.store.fork(rows.lengths)
    const given = { store, rows: rows.fork(store.capacity), archive: archive?.fork() }
    const copy = new RankedCache(this.#options, this.#hasImportance, given)
    copyRankedParts(this.#parts, copy.#parts)
    copy.#seen = this.#seen
    return copy
  }

  dispose(): void {
    freeRankedParts(this.#parts)
  }
}
