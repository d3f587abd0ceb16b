/** How new tokens come into a bounded layer: which of them stay, in which rows, and what follows from that. */
import type { KeepArgs, Rotation, RowTarget } from '../../kernels/index.ts'
import type { LayerInput } from '../contract.ts'
import { checkScores } from '../layout.ts'
import type { PositionAxis } from '../position-axis.ts'
import type { Room } from '../room.ts'
import type { Writes } from '../storage/row-store.ts'
import type { KeptConfig, KeptParts } from './parts.ts'
import { createPlan, type RetainPlan } from './state.ts'

export type NewInput = Omit<LayerInput, 'query'>

export class KeptIntake {
  readonly #config: KeptConfig
  readonly #parts: KeptParts
  /** The single-token step reuses these, so that it allocates nothing that lasts. */
  readonly #step: RetainPlan
  /** Scores of one token: where recency ranks, all the same. */
  readonly #scores: Float32Array
  /** `[K]`: rows to make room for. */
  readonly #needed: Int32Array

  constructor(config: KeptConfig, parts: KeptParts) {
    const { numKvHeads } = config.shape
    this.#config = config
    this.#parts = parts
    this.#step = this.#createPlan(1)
    this.#scores = new Float32Array(numKvHeads)
    this.#needed = new Int32Array(numKvHeads)
  }

  #createPlan(numTokens: number): RetainPlan {
    const { shape, window } = this.#config
    const sizes = { numKvHeads: shape.numKvHeads, window, isWatched: this.#parts.history !== undefined }
    return createPlan(sizes, numTokens)
  }

  /** Whether distances between kept tokens change within the chunk, so that each query sees other rotations. */
  changesRanks({ importance, numTokens }: NewInput): boolean {
    const { window, rankBy } = this.#config
    const { axis, state } = this.#parts
    if (!axis?.isRank) return false
    if (Math.max(...state.view.lengths) + numTokens > window || typeof rankBy === 'function') return true
    return rankBy === 'importance' && (importance as Float32Array).includes(Number.NEGATIVE_INFINITY)
  }

  /** Takes tokens in that come after `seen` others. */
  take(input: NewInput, seen: number): void {
    this.reserve(input.numTokens)
    const turn = this.#parts.axis?.forNext(input.numTokens)
    const targets = this.#parts.store.targets?.(input, turn)
    const plan = this.#offer(input, seen, targets)
    if (!targets) this.#parts.store.write(input, plan, turn)
    else this.#parts.store.written?.(input, plan, turn)
    this.#follow(input, seen, plan)
  }

  /** Refuses what may be refused of several tokens that will be taken one by one, before the first changes anything. */
  prepare(input: NewInput, seen: number): void {
    if (typeof this.#config.rankBy === 'function') checkScores(this.#scoresOf(input, seen))
    this.reserve(input.numTokens)
  }

  /** What can run out of memory comes before what changes the kept set. */
  reserve(numTokens: number): void {
    this.#parts.store.reserve(this.#needed, this.#writes(numTokens))
  }

  roomFor(numTokens: number, room: Room): void {
    this.#parts.store.roomFor(this.#needed, this.#writes(numTokens), room)
  }

  /** Sets the lengths that are needed, too. */
  #writes(count: number): Writes {
    const { lengths, window } = this.#parts.state.view
    let isFull = false
    for (let k = 0; k < lengths.length; k++) {
      const length = (lengths[k] as number) + count
      isFull ||= length > window
      this.#needed[k] = Math.min(window, length)
    }
    return { count, rows: this.#parts.axis?.isRank ? 'all' : isFull ? 'any' : 'last' }
  }

  /** Chooses what stays of a chunk, which is to be settled when nobody sees the rows any more that are given away. */
  choose(input: NewInput, seen: number): RetainPlan {
    return this.#offer(input, seen)
  }

  /** Stores what stays of a chunk. */
  settle(input: NewInput, seen: number, plan: RetainPlan, turn: Rotation | undefined): void {
    this.#parts.store.write(input, plan, turn)
    this.#follow(input, seen, plan)
  }

  #offer(input: NewInput, seen: number, targets?: readonly RowTarget[]): RetainPlan {
    const { kernels } = this.#config
    const { numTokens } = input
    const plan = numTokens === 1 ? this.#step : this.#createPlan(numTokens)
    const scores = this.#scoresOf(input, seen)
    const args: KeepArgs = {
      kept: this.#parts.state.view,
      scores,
      numTokens,
      firstPosition: seen,
      rowDeaths: plan.rowDeaths,
      tokenDeaths: plan.tokenDeaths,
      counts: plan.counts,
      tokens: plan.tokens,
      slots: plan.slots,
      leftPositions: plan.leftPositions,
      leftScores: plan.leftScores,
      targets: targets ?? [],
    }
    if (targets) kernels.keep(args)
    else kernels.retain(args)
    plan.scores = scores
    return plan
  }

  #scoresOf({ key, value, importance, numTokens }: NewInput, firstPosition: number): Float32Array {
    const { rankBy, shape, layer = 0 } = this.#config
    if (rankBy === 'importance') return importance as Float32Array
    const scores = numTokens === 1 ? this.#scores : new Float32Array(numTokens * shape.numKvHeads)
    if (rankBy === 'recency') return scores
    const { numKvHeads, headDim, valueDim } = shape
    const sizes = { layer, numTokens, numKvHeads, headDim, valueDim, firstPosition }
    rankBy({ ...sizes, key, value, importance }, scores)
    return scores
  }

  /** What follows from what stays of new tokens, which is stored by now, and from what leaves. */
  #follow(input: NewInput, firstPosition: number, plan: RetainPlan): void {
    const { store, state, bias, axis, history, archive } = this.#parts
    const { importance, numTokens } = input
    archive?.add(input)
    axis?.advance(numTokens)
    const kept = state.view
    if (bias && importance) noteBias(bias.f32, kept.window, importance, plan)
    if (axis?.isRank) place(axis, numTokens, plan)
    history?.record(kept, plan, firstPosition, numTokens)
    axis?.apply(store, kept.lengths)
    store.settle()
  }
}

function noteBias(
  bias: Float32Array,
  window: number,
  importance: Float32Array,
  { counts, tokens, slots, stride }: RetainPlan,
): void {
  for (let k = 0; k < counts.length; k++) {
    for (let n = k * stride; n < k * stride + (counts[k] as number); n++) {
      bias[k * window + (slots[n] as number)] = importance[(tokens[n] as number) * counts.length + k] as number
    }
  }
}

function place(axis: PositionAxis, numTokens: number, { counts, tokens, slots, stride }: RetainPlan): void {
  for (let k = 0; k < counts.length; k++) {
    for (let n = k * stride; n < k * stride + (counts[k] as number); n++) {
      axis.place(k, slots[n] as number, numTokens - (tokens[n] as number))
    }
  }
}
