/** How many rows each head may have before they are ranked, and how many stay then: budgets, shared or dynamic. */
import type { Retention } from '../retention.ts'
import type { StateVisitor } from '../snapshot/state.ts'
import type { RowLimit } from '../storage/row-store.ts'
import { type DynamicWindow, massBudgets, type Ranked, type SelectionRules } from './selection.ts'

export interface RowLimitOptions {
  /** W: rows a head after each call, or the mean of all heads with `safeguard`. */
  readonly window: number
  readonly sinks: number
  readonly recent: number
  /** Rows that leave at once, so that ranking happens once in so many single steps. */
  readonly interval: number
  readonly safeguard?: number
  readonly dynamic?: DynamicWindow
  /** Number of the layer. */
  readonly layer: number
}

/** Multiples of it, but for their whole part, lie evenly between 0 and 1 however many there are. */
const goldenRatio = (Math.sqrt(5) - 1) / 2

export class RowLimits {
  readonly #options: RowLimitOptions
  /** `[K]`, with a dynamic window. */
  readonly #limits: Int32Array
  /** Heads are ranked each by itself. */
  readonly #isByHead: boolean

  constructor(options: RowLimitOptions, numKvHeads: number, retention: Retention) {
    this.#options = options
    const isTogether = options.safeguard !== undefined || options.dynamic !== undefined
    this.#isByHead = !isTogether && retention.kind === 'rescoring' && retention.isByHead === true
    this.#limits = new Int32Array(numKvHeads)
    this.reset()
  }

  #limit(head: number): number {
    return this.#options.dynamic ? (this.#limits[head] as number) : this.#options.window
  }

  /** Whether some head, or all together where they share, have more rows than they may. */
  isDue(lengths: Int32Array): boolean {
    const { window, safeguard } = this.#options
    let [total, isOver] = [0, false]
    for (let k = 0; k < lengths.length; k++) {
      total += lengths[k] as number
      isOver ||= (lengths[k] as number) > this.#limit(k)
    }
    return safeguard === undefined ? isOver : total > lengths.length * window
  }

  /** Rows after each call. */
  get most(): RowLimit {
    return { rows: this.#options.window, isShared: this.#options.safeguard !== undefined }
  }

  /** Rows of all heads that leave at most, when rows are due. */
  mostEvicted(lengths: Int32Array): number {
    const { dynamic, safeguard } = this.#options
    if (dynamic) return lengths.reduce((sum, length) => sum + length, 0)
    const { budget } = this.rules
    const excess = lengths.map((length) => (safeguard === undefined ? Math.max(0, length - budget) : length - budget))
    return Math.max(
      0,
      excess.reduce((sum, rows) => sum + rows, 0),
    )
  }

  /** When rows are due: the heads whose rows get a score. */
  headsToRank(lengths: Int32Array): number[] {
    const heads = Array.from(lengths.keys())
    return this.#isByHead ? heads.filter((k) => (lengths[k] as number) > this.#limit(k)) : heads
  }

  /** Whether rows of a head that was ranked may leave: heads that share nothing keep what fits. */
  mayEvict(head: number, lengths: Int32Array): boolean {
    const { safeguard, dynamic, window } = this.#options
    return safeguard !== undefined || dynamic !== undefined || (lengths[head] as number) > window
  }

  /** Single steps until rows are ranked, the next one included, if every head takes every token. */
  stepsLeft(lengths: Int32Array): number {
    const { window, safeguard } = this.#options
    let [total, left] = [0, Number.POSITIVE_INFINITY]
    for (let k = 0; k < lengths.length; k++) {
      total += lengths[k] as number
      left = Math.min(left, this.#limit(k) + 1 - (lengths[k] as number))
    }
    return safeguard === undefined ? left : Math.floor((lengths.length * window - total) / lengths.length) + 1
  }

  get rules(): SelectionRules {
    const { window, sinks, recent, interval, safeguard } = this.#options
    return { budget: Math.max(window - interval + 1, sinks + recent, 1), sinks, recent, safeguard }
  }

  /** Budgets of the heads that are ranked. Where windows are dynamic, by what their rows got of recent attention. */
  adapt(ranked: readonly Ranked[], massesOf: () => readonly Float32Array[]): SelectionRules {
    const { interval, window, dynamic } = this.#options
    const { rules } = this
    if (this.#isByHead) return { ...rules, budgets: this.#apart(ranked.length) }
    if (!dynamic) return rules
    const budgets = massBudgets(ranked, massesOf(), dynamic, rules, rules.budget)
    for (const [k, budget] of budgets.entries()) this.#limits[k] = Math.min(window, budget + interval - 1)
    return { ...rules, budgets }
  }

  /**
   * Heads that are due together keep some rows more, each more than the one before and other layers others, so that next
   * time they are due on different steps and no step waits for all.
   */
  #apart(numHeads: number): number[] {
    const { interval, layer } = this.#options
    const { budget } = this.rules
    const shift = numHeads > 1 ? (layer * goldenRatio) % 1 : 0
    return Array.from({ length: numHeads }, (_, n) => budget + Math.floor(((n + shift) * interval) / numHeads))
  }

  visitState(visitor: StateVisitor): void {
    visitor.integers('limits', this.#limits, 0, this.#options.window)
  }

  reset(): void {
    this.#limits.fill(this.#options.dynamic?.least ?? this.#options.window)
  }

  copyFrom(other: RowLimits): void {
    this.#limits.set(other.#limits)
  }
}
