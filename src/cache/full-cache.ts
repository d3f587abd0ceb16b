/**
 * One layer of one sequence that keeps every token and grows by doubling. With a window W it still keeps everything,
 * but each query sees only the W visible tokens of highest importance, chosen anew: dynamic mask attention, the
 * definition that the bounded cache must agree with.
 */
import type { KeyValueSegment } from '../kernels/index.ts'
import { attendArgs, attentionOf, type LayerAttention } from './attend-args.ts'
import type { CacheInfo, LayerCache, LayerExplanation, LayerInput, SharedRows } from './contract.ts'
import { bytesOfTokens, checkInput, createStore, type LayerConfig, type Queries, visitConfig } from './layout.ts'
import type { Room } from './room.ts'
import { SharedTokens } from './shared-tokens.ts'
import type { StateVisitor } from './snapshot/state.ts'
import { RowColumn } from './storage/row-column.ts'
import { appendedRows, type RowFacts, type RowStore } from './storage/row-store.ts'

export interface FullCacheOptions extends LayerConfig {
  /** W of the dynamic mask; absent: a query sees everything before it. */
  readonly window?: number
  readonly addImportance?: boolean
}

const firstCapacity = 256

export class FullCache implements LayerCache {
  readonly visitTokens: LayerCache['visitTokens']
  readonly shareTokens: LayerCache['shareTokens']
  readonly #options: FullCacheOptions
  readonly #layer: LayerAttention
  readonly #hasImportance: boolean
  readonly #store: RowStore
  /** Absent for models without importance. */
  readonly #scores: RowColumn | undefined
  #seen = 0

  constructor(options: FullCacheOptions, hasImportance: boolean, store?: RowStore) {
    const { kernels, shape } = options
    this.#options = options
    this.#layer = attentionOf(options)
    this.#hasImportance = hasImportance
    this.#store = store ?? createStore(options, firstCapacity)
    this.#scores = hasImportance ? new RowColumn(kernels, shape.numKvHeads, this.#store.capacity) : undefined
    if (this.#store.isDivisible) this.visitTokens = (...range) => this.#visitTokens(...range)
    if (this.#store.share) this.shareTokens = (...range) => this.#shareTokens(...range)
  }

  attend(input: LayerInput, output: Float32Array): void {
    checkInput(this.#options, this.#hasImportance, input, output)
    this.#write(input)
    this.#attendFrom(this.#seen, input, output)
    this.#seen += input.numTokens
    if (!this.#options.shape.isShared) this.#store.settle()
  }

  attendAgain(input: Queries, output: Float32Array): void {
    checkInput(this.#options, false, input, output, true)
    this.#attendFrom(this.#seen - input.numTokens, input, output)
  }

  #attendFrom(first: number, input: Queries, output: Float32Array): void {
    if (this.#options.window === undefined) this.#attendAll(first, input, output)
    else this.#attendMasked(first, input, output, this.#options.window)
  }

  /** Takes tokens in without attending. */
  append(input: Omit<LayerInput, 'query'>): void {
    checkInput(this.#options, this.#hasImportance, input)
    this.#write(input)
    this.#seen += input.numTokens
    this.#store.settle()
  }

  /** A row's place is its position: row j is seen by queries from position j on. */
  #attendAll(first: number, input: Queries, output: Float32Array): void {
    this.#run(input, output, this.#segments(this.#lengths(first + input.numTokens)), first)
  }

  /** Query by query: rows 0..i are ranked anew and the best W chosen. */
  #attendMasked(first: number, input: Queries, output: Float32Array, window: number): void {
    const { kernels, shape, pool } = this.#options
    const { numHeads, numKvHeads, headDim, valueDim } = shape
    const { capacity } = this.#store
    const rows = new Int32Array(numKvHeads * capacity)
    const lengths = new Int32Array(numKvHeads)
    for (let t = 0; t < input.numTokens; t++) {
      const numRows = first + t + 1
      const scores = (this.#scores as RowColumn).values
      kernels.select({ scores, numKvHeads, capacity, numRows, window, rows, lengths })
      const query = input.query.subarray(t * numHeads * headDim, (t + 1) * numHeads * headDim)
      const out = output.subarray(t * numHeads * valueDim, (t + 1) * numHeads * valueDim)
      const segments = pool ? this.#hiding(rows, lengths, numRows) : this.#segments(lengths, { rows })
      this.#run({ query, numTokens: 1 }, out, segments, first + t)
    }
  }

  /** Kernels take either a list of rows or pages: over pages, rows that are not in the list get a bias that hides. */
  #hiding(rows: Int32Array, lengths: Int32Array, numRows: number): KeyValueSegment[] {
    const { capacity } = this.#store
    const bias = new Float32Array(rows.length).fill(Number.NEGATIVE_INFINITY)
    for (const [k, length] of lengths.entries()) {
      for (let n = 0; n < length; n++) {
        const at = k * capacity + (rows[k * capacity + n] as number)
        bias[at] = this.#bias?.[at] ?? 0
      }
    }
    return this.#segments(this.#lengths(numRows), { bias })
  }

  get #bias(): Float32Array | undefined {
    return this.#options.addImportance === false ? undefined : this.#scores?.values
  }

  #lengths(numRows: number): Int32Array {
    return new Int32Array(this.#options.shape.numKvHeads).fill(numRows)
  }

  #segments(lengths: Int32Array, facts: Partial<RowFacts> = {}): KeyValueSegment[] {
    return this.#store.segments(lengths, { firstPosition: 0, origin: 0, bias: this.#bias, ...facts })
  }

  #run({ query, numTokens }: Queries, output: Float32Array, segments: KeyValueSegment[], firstPosition: number): void {
    const { kernels, shape } = this.#options
    const left = shape.window === undefined ? undefined : shape.window - 1
    kernels.attend(attendArgs(this.#layer, { query, output, numTokens, firstPosition, left, right: 0, segments }))
  }

  #write(input: Omit<LayerInput, 'query'>): void {
    const { importance, numTokens } = input
    const { numKvHeads } = this.#options.shape
    const before = this.#lengths(this.#seen)
    this.#reserve(this.#lengths(this.#seen + numTokens), numTokens)
    this.#store.write(input, appendedRows(before, numTokens))
    if (!this.#scores || !importance) return
    const scores = this.#scores.values
    for (let k = 0; k < numKvHeads; k++) {
      for (let t = 0; t < numTokens; t++) {
        scores[k * this.#store.capacity + this.#seen + t] = importance[t * numKvHeads + k] as number
      }
    }
  }

  positions(_head: number): number[] {
    return Array.from({ length: this.#seen }, (_, i) => i)
  }

  info(): CacheInfo {
    return {
      keptTokens: this.#seen,
      seenTokens: this.#seen,
      capacityUtilization: this.#seen / this.#store.capacity,
      bytes: this.#store.bytes + (this.#scores?.bytes ?? 0),
      fullBytes: bytesOfTokens(this.#options, this.#seen, this.#hasImportance),
      evictedTokens: 0,
    }
  }

  explain(): LayerExplanation {
    const { capacity } = this.#store
    const heads = Array.from({ length: this.#options.shape.numKvHeads }, (_, k) => ({
      positions: this.positions(k),
      scores: this.positions(k).map((row) => this.#scores?.values[k * capacity + row] ?? null),
    }))
    return { heads, evicted: [] }
  }

  visitState(visitor: StateVisitor): void {
    this.#visitConfig(visitor)
    this.#seen = visitor.integer('tokens', this.#seen, 0, 2 ** 31 - 1)
    this.#visitRows(visitor, 0, this.#seen)
  }

  #visitTokens(visitor: StateVisitor, first: number, count: number): void {
    this.#visitConfig(visitor)
    this.#visitRows(visitor, first, first + count)
    if (visitor.isReading) this.#seen = first + count
  }

  #visitConfig(visitor: StateVisitor): void {
    visitor.fixed('cache', 'full')
    visitConfig(visitor, this.#options)
    visitor.fixed('window', this.#options.window ?? 'none')
    visitor.fixed('importance', this.#hasImportance)
  }

  #visitRows(visitor: StateVisitor, from: number, to: number): void {
    const lengths = this.#lengths(to)
    this.#store.visitRows(visitor, lengths, from)
    this.#scores?.resize(this.#store.capacity, this.#lengths(from))
    this.#scores?.visitState(visitor, lengths, from)
  }

  #shareTokens(first: number, count: number): SharedRows | undefined {
    const rows = this.#store.share?.(first, count)
    const lengths = this.#lengths(first + count)
    return rows && new SharedTokens(rows, count, this.#scores?.slice(lengths, first))
  }

  adoptTokens(shared: SharedRows): boolean {
    if (!(shared instanceof SharedTokens) || (shared.scores === undefined) !== (this.#scores === undefined))
      return false
    if (!this.#store.adopt?.(shared.rows, this.#seen)) return false
    const before = this.#lengths(this.#seen)
    this.#scores?.resize(this.#store.capacity, before)
    if (shared.scores) this.#scores?.fill(shared.scores, before)
    this.#seen += shared.count
    return true
  }

  roomFor(numTokens: number, room: Room): void {
    this.#store.roomFor(this.#lengths(this.#seen + numTokens), { count: numTokens, rows: 'last' }, room)
  }

  reserve(length: number): void {
    this.#reserve(this.#lengths(Math.max(length, this.#seen)), 0)
  }

  #reserve(lengths: Int32Array, count: number): void {
    this.#store.reserve(lengths, { count, rows: 'last' })
    this.#scores?.resize(this.#store.capacity, this.#lengths(this.#seen))
  }

  checkIntegrity(): void {
    this.#store.checkIntegrity()
  }

  truncate(length: number): void {
    this.#seen = Math.min(this.#seen, length)
    this.#store.rewind(this.#seen)
    this.#store.release(this.#lengths(this.#seen))
  }

  reset(): void {
    this.truncate(0)
  }

  fork(): FullCache {
    const lengths = this.#lengths(this.#seen)
    const copy = new FullCache(this.#options, this.#hasImportance, this.#store.fork(lengths))
    if (this.#scores) copy.#scores?.copyFrom(this.#scores, lengths)
    copy.#seen = this.#seen
    return copy
  }

  dispose(): void {
    this.#store.free()
    this.#scores?.free()
  }
}
