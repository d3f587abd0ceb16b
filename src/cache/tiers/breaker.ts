/** Leaves alone for a while what has failed: twice as long after each failure in a row, up to a limit. */

export interface BreakerOptions {
  readonly retryMs: number
  readonly maxRetryMs: number
  /** Milliseconds of any clock that never goes back. */
  readonly now?: () => number
}

export class Breaker {
  readonly #options: Required<BreakerOptions>
  #failures = 0
  #until = Number.NEGATIVE_INFINITY

  constructor(options: BreakerOptions) {
    this.#options = { now: () => performance.now(), ...options }
  }

  get isOpen(): boolean {
    return this.#options.now() < this.#until
  }

  succeeded(): void {
    this.#failures = 0
  }

  failed(): void {
    const { retryMs, maxRetryMs, now } = this.#options
    this.#until = now() + Math.min(maxRetryMs, retryMs * 2 ** this.#failures++)
  }
}
