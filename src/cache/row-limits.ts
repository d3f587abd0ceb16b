/** How many rows each head may have before they are ranked, and how many stay then: budgets, shared or dynamic. */
import { type DynamicWindow, massBudgets, type Ranked, type SelectionRules } from './selection.ts'
import type { StateVisitor } from './snapshot/state.ts'

export interface RowLimitOptions {
  /** W: rows a head after each call, or the mean of all heads with `safeguard`. */
  readonly window: number
  readonly sinks: number
  readonly recent: number
  /** Rows that leave at once, so that ranking happens once in so many single steps. */
  readonly interval: number
  readonly safeguard?: number
  readonly dynamic?: DynamicWindow
}

export class RowLimits {
  readonly #options: RowLimitOptions
  /** `[K]`, with a dynamic window. */
  readonly #limits: Int32Array

  constructor(options: RowLimitOptions, numKvHeads: number) {
    this.#options = options
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

  /** Where windows are dynamic: the budget of each head by what its rows got of recent attention. */
  adapt(ranked: readonly Ranked[], massesOf: () => readonly Float32Array[]): SelectionRules {
    const { interval, window, dynamic } = this.#options
    const { rules } = this
    if (!dynamic) return rules
    const budgets = massBudgets(ranked, massesOf(), dynamic, rules, rules.budget)
    for (const [k, budget] of budgets.entries()) this.#limits[k] = Math.min(window, budget + interval - 1)
    return { ...rules, budgets }
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
