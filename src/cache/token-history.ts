/** The ids of the tokens that a sequence has seen, 4 bytes each: what saved caches are compared by. */
import type { StateVisitor } from './snapshot/state.ts'

export class TokenHistory {
  #ids = new Int32Array(64)
  #length = 0

  get length(): number {
    return this.#length
  }

  /** A view, good until the next change. */
  get ids(): Int32Array {
    return this.#ids.subarray(0, this.#length)
  }

  add(tokens: ArrayLike<number>): void {
    this.#reserve(this.#length + tokens.length)
    this.#ids.set(tokens, this.#length)
    this.#length += tokens.length
  }

  truncate(length: number): void {
    this.#length = Math.min(this.#length, length)
  }

  fork(): TokenHistory {
    const copy = new TokenHistory()
    copy.add(this.ids)
    return copy
  }

  visitState(visitor: StateVisitor): void {
    const length = visitor.integer('token ids', this.#length, 0)
    visitor.expect('token ids', 4 * length)
    this.#reserve(length)
    this.#length = length
    visitor.integers('token ids', this.ids, 0)
  }

  #reserve(length: number): void {
    if (length <= this.#ids.length) return
    const ids = new Int32Array(Math.max(length, 2 * this.#ids.length))
    ids.set(this.ids)
    this.#ids = ids
  }
}
