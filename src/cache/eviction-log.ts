/** The last evictions of a layer, in a ring of fixed size. */
import type { Eviction } from './contract.ts'
import type { StateVisitor } from './snapshot/state.ts'

export class EvictionLog {
  readonly #size: number
  readonly #numbers: Float64Array
  #count = 0

  constructor(size: number) {
    this.#size = size
    this.#numbers = new Float64Array(4 * size)
  }

  add(head: number, position: number, score: number, seenTokens: number): void {
    if (this.#size === 0) return
    const at = 4 * (this.#count % this.#size)
    this.#numbers[at] = head
    this.#numbers[at + 1] = position
    this.#numbers[at + 2] = score
    this.#numbers[at + 3] = seenTokens
    this.#count++
  }

  /** Oldest first. */
  get entries(): Eviction[] {
    const kept = Math.min(this.#count, this.#size)
    return Array.from({ length: kept }, (_, n) => {
      const at = 4 * ((this.#count - kept + n) % this.#size)
      const [head, position, score, seenTokens] = this.#numbers.subarray(at, at + 4) as unknown as number[]
      return { head: head!, position: position!, score: scoreOf(score!), seenTokens: seenTokens! }
    })
  }

  visitState(visitor: StateVisitor): void {
    visitor.fixed('eviction log', this.#size)
    this.#count = visitor.integer('evictions', this.#count, 0)
    visitor.numbers(this.#numbers.subarray(0, 4 * Math.min(this.#count, this.#size)))
  }

  clear(): void {
    this.#count = 0
  }

  copyFrom(other: EvictionLog): void {
    this.#numbers.set(other.#numbers)
    this.#count = other.#count
  }
}

/** A score for people: null where there is none. */
export function scoreOf(score: number): number | null {
  return Number.isNaN(score) ? null : score
}
