/**
 * What a layer remembers of queries for its next ranking, as far as its policy asks: the attention that each row got from
 * all of them, or from the last ones, and a sample of them all.
 */
import type { AttendArgs, Kernels } from '../../kernels/index.ts'
import type { LayerConfig, Queries } from '../layout.ts'
import type { QuerySample } from '../retention.ts'
import type { StateVisitor } from '../snapshot/state.ts'
import { type RowStore, weighRows } from '../storage/row-store.ts'
import type { RankedAttention } from './attention.ts'
import { MassTally } from './mass-tally.ts'
import { QueryRing, QuerySampler } from './query-ring.ts'
import type { RankedRows } from './rows.ts'
import { ScratchFloats } from './scratch-floats.ts'

/** What is remembered of, and how queries see it. */
export interface Remembered {
  readonly config: LayerConfig
  readonly store: RowStore
  readonly rows: RankedRows
  readonly attention: RankedAttention
}

/** Attention that rows got, `[K, C]`, and of how many queries. */
export interface RecentMass {
  readonly values: Float32Array
  readonly count: number
}

export class QueryRecord {
  readonly #of: Remembered
  readonly #kernels: Kernels
  /** How many of the last queries are asked for; 0: none. */
  readonly #size: number
  readonly #ring: QueryRing | undefined
  readonly #sampler: QuerySampler | undefined
  readonly #tally: MassTally | undefined
  /** `[H, C]` of a single step. */
  readonly #logits: ScratchFloats
  /** Whether the attention of the query that came last goes to the tally. */
  #isTallied = false

  /**
   * @param latest how many of the last queries are asked for
   * @param sampled how many of all
   * @param isSteady rows that queries saw look the same to later ones
   */
  constructor(of: Remembered, { latest, sampled, isSteady }: { latest: number; sampled: number; isSteady: boolean }) {
    const { kernels, shape } = of.config
    const width = shape.numHeads * shape.headDim
    this.#of = of
    this.#kernels = kernels
    this.#size = latest
    this.#ring = latest > 0 ? new QueryRing(latest, width) : undefined
    this.#sampler = sampled > 0 ? new QuerySampler(sampled, width) : undefined
    this.#tally = latest > 0 && isSteady ? new MassTally(kernels, shape.numKvHeads, latest) : undefined
    this.#logits = new ScratchFloats(kernels)
  }

  /**
   * Queries have come, and their tokens are stored.
   * @param stepsLeft until rows were ranked, before they came
   */
  add({ query, numTokens }: Queries, firstPosition: number, stepsLeft: number): void {
    if (numTokens > 1) this.#tally?.clear()
    this.#isTallied = numTokens === 1 && this.#tally?.counts(stepsLeft, this.#of.store.capacity) === true
    this.#ring?.add(query, numTokens)
    this.#sampler?.add(query, numTokens, firstPosition)
  }

  /** Of a single query that will be weighed: where it leaves its logits, to be weighed without products. */
  get logits(): Float32Array | undefined {
    if (!(this.#of.rows.mass || this.#isTallied)) return undefined
    return this.#logits.reserve(this.#of.config.shape.numHeads * this.#of.store.capacity)
  }

  /** Adds up what rows got from queries that have attended. `args` makes arguments anew: memory may have moved. */
  weigh(args: () => AttendArgs): void {
    const { rows, store } = this.#of
    if (rows.mass) weighRows(this.#kernels, store, args(), rows.mass.values)
    if (this.#tally && this.#isTallied) weighRows(this.#kernels, store, args(), this.#tally.values)
  }

  /** Rows have left, or tokens came without queries: what was added up one by one no longer counts. */
  interrupt(): void {
    this.#tally?.clear()
  }

  sample(meanRotation: QuerySample['meanRotation']): QuerySample | undefined {
    return this.#sampler?.sample(meanRotation)
  }

  /**
   * What attention each row got from the last queries; undefined where nobody asks.
   * @param seen tokens so far
   * @param last the arguments of the attention that has just been
   */
  recentMass(seen: number, last: (() => AttendArgs) | undefined): RecentMass | undefined {
    if (!this.#ring) return undefined
    if (this.#tally?.isComplete) return { values: this.#tally.values, count: this.#size }
    const { store, rows } = this.#of
    const values = new Float32Array(rows.lengths.length * store.capacity)
    const args = last?.()
    if (args && args.numTokens >= this.#size) {
      weighRows(this.#kernels, store, args, values, args.numTokens - this.#size)
      return { values, count: this.#size }
    }
    if (this.#ring.count > 0) this.#weighAgain(this.#ring, seen, values)
    return { values, count: this.#ring.count }
  }

  /** The last queries attend once more, to the rows that are left. */
  #weighAgain(ring: QueryRing, seen: number, values: Float32Array): void {
    const { config, store, attention } = this.#of
    const { numHeads, valueDim } = config.shape
    const numTokens = ring.count
    const queries = { query: ring.latest(), numTokens }
    const output = new Float32Array(numTokens * numHeads * valueDim)
    const lse = new Float32Array(numTokens * numHeads)
    const args = (): AttendArgs => attention.argsOfLast(queries, output, { seen, lse })
    this.#kernels.attend(args())
    weighRows(this.#kernels, store, args(), values)
  }

  visitState(visitor: StateVisitor): void {
    const { rows, store } = this.#of
    this.#ring?.visitState(visitor)
    this.#tally?.visitState(visitor, rows.lengths, store.capacity)
    this.#sampler?.visitState(visitor)
  }

  clear(): void {
    this.#ring?.clear()
    this.#tally?.clear()
    this.#sampler?.clear()
  }

  copyFrom(other: QueryRecord): void {
    if (other.#ring) this.#ring?.copyFrom(other.#ring)
    if (other.#tally) this.#tally?.copyFrom(other.#tally)
    if (other.#sampler) this.#sampler?.copyFrom(other.#sampler)
  }

  free(): void {
    this.#tally?.free()
    this.#logits.free()
  }
}
