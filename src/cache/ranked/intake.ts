/** How new tokens come into a layer whose rows are ranked: behind those that are there, to be ranked later. */
import type { LayerInput } from '../contract.ts'
import type { PageArchive } from '../hierarchical/page-archive.ts'
import { checkScores, type LayerConfig } from '../layout.ts'
import type { PositionAxis } from '../position-axis.ts'
import type { Retention } from '../retention.ts'
import type { Room } from '../room.ts'
import type { RowList, RowStore, Writes } from '../storage/row-store.ts'
import type { RowLimits } from './limits.ts'
import type { RankedRows } from './rows.ts'

type NewInput = Omit<LayerInput, 'query'>

/** Where tokens go to. */
export interface Places {
  readonly store: RowStore
  readonly rows: RankedRows
  readonly axis: PositionAxis | undefined
  readonly archive: PageArchive | undefined
  readonly limits: RowLimits
}

export class RowIntake {
  readonly #config: LayerConfig & { readonly retention: Retention; readonly layer: number }
  readonly #hasImportance: boolean
  readonly #places: Places
  /** The single-token step reuses these. */
  readonly #single: Append
  /** `[K]`: rows to make room for. */
  readonly #needed: Int32Array

  constructor(
    config: LayerConfig & { readonly retention: Retention; readonly layer: number },
    hasImportance: boolean,
    places: Places,
  ) {
    this.#config = config
    this.#hasImportance = hasImportance
    this.#places = places
    this.#single = createAppend(config.shape.numKvHeads, 1)
    this.#needed = new Int32Array(config.shape.numKvHeads)
  }

  /**
   * Stores new tokens behind what is there; those of importance -Infinity are passed over.
   * @param seen tokens before
   * @returns the lengths of heads before
   */
  take(input: NewInput, seen: number): Int32Array {
    const { numTokens } = input
    const { store, rows, axis, archive } = this.#places
    const scores = this.#staticScores(input, seen)
    const { firsts, list } = numTokens === 1 ? this.#single : createAppend(rows.lengths.length, numTokens)
    firsts.set(rows.lengths)
    this.reserve(numTokens)
    const turn = axis?.forNext(numTokens)
    axis?.advance(numTokens)
    archive?.add(input, turn)
    this.#place(input, seen, scores, list)
    store.write(input, list, turn)
    if (this.#hasImportance) for (let k = 0; k < firsts.length; k++) axis?.renumber(k, rows.order(k))
    axis?.apply(store, rows.lengths)
    return firsts
  }

  /** Refuses what may be refused of several tokens that will be taken one by one, before the first changes anything. */
  prepare(input: NewInput, seen: number): void {
    this.#staticScores(input, seen)
    this.reserve(input.numTokens)
  }

  /** What can run out of memory comes before what changes anything, also of the ranking that follows. */
  reserve(numTokens: number): void {
    this.#places.store.reserve(this.#needed, this.#writes(numTokens))
    this.fit()
  }

  roomFor(numTokens: number, room: Room): void {
    this.#places.store.roomFor(this.#needed, this.#writes(numTokens), room)
  }

  /** Sets the lengths that are needed, too. */
  #writes(count: number): Writes {
    const { rows, axis, limits } = this.#places
    for (let k = 0; k < rows.lengths.length; k++) this.#needed[k] = (rows.lengths[k] as number) + count
    const isDue = limits.isDue(this.#needed)
    // Layers that share rows are ranked before the next token, not after this one.
    const limit = isDue && !this.#config.shape.isShared ? limits.most : undefined
    const moved = isDue ? limits.mostEvicted(this.#needed) : 0
    return { count, rows: axis?.isRank ? 'all' : 'last', moved, limit }
  }

  /** Gives each token a row in each head. */
  #place({ importance, numTokens }: NewInput, seen: number, scores: Float32Array | undefined, list: RowList): void {
    const { rows, axis, archive } = this.#places
    const { counts, tokens, slots } = list
    const K = counts.length
    for (let k = 0; k < K; k++) {
      let count = 0
      for (let t = 0; t < numTokens; t++) {
        const bias = importance?.[t * K + k] ?? 0
        if (bias === Number.NEGATIVE_INFINITY && this.#hasImportance) {
          archive?.leave(k, seen + t)
          continue
        }
        const row = rows.lengths[k] as number
        tokens[k * numTokens + count] = t
        slots[k * numTokens + count++] = row
        axis?.place(k, row, numTokens - t)
        rows.add(k, seen + t, scores ? (scores[t * K + k] as number) : Number.NaN, bias)
      }
      counts[k] = count
    }
  }

  #staticScores({ key, value, importance, numTokens }: NewInput, seen: number): Float32Array | undefined {
    const { retention, shape, layer } = this.#config
    if (retention.kind !== 'static') return undefined
    if (retention.rankBy === 'importance') return importance
    const { numKvHeads, headDim, valueDim } = shape
    const scores = new Float32Array(numTokens * numKvHeads)
    if (retention.rankBy === 'recency') return scores
    const sizes = { layer, numTokens, numKvHeads, headDim, valueDim, firstPosition: seen }
    retention.rankBy({ ...sizes, key, value, importance }, scores)
    checkScores(scores)
    return scores
  }

  /** What is known of rows has room for as many as the store. */
  fit(): void {
    const { store, rows, axis } = this.#places
    rows.resize(store.capacity)
    axis?.resize(store.capacity, rows.lengths)
  }
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
