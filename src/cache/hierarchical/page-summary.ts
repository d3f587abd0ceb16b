/**
 * What is remembered of a page while its rows are elsewhere: for each KV head the least and greatest number of each
 * channel of its keys, so that no key of the page can score more than `bound` for a query. Tang et al., "Quest:
 * Query-Aware Sparsity for Efficient Long-Context LLM Inference" (2024), section 3.3.
 */
import type { StateVisitor } from '../snapshot/state.ts'
import { pageTokens } from './page-bytes.ts'

export class PageSummary {
  /** `[K, D]` */
  readonly #least: Float32Array
  /** `[K, D]` */
  readonly #greatest: Float32Array
  /** `[K, P]`: added to the logits; -Infinity: a token that is passed over. */
  readonly bias: Float32Array
  readonly #headDim: number

  constructor(numKvHeads: number, headDim: number) {
    this.#headDim = headDim
    this.#least = new Float32Array(numKvHeads * headDim).fill(Number.POSITIVE_INFINITY)
    this.#greatest = new Float32Array(numKvHeads * headDim).fill(Number.NEGATIVE_INFINITY)
    this.bias = new Float32Array(numKvHeads * pageTokens)
  }

  /** @param key `[K, D]` of the token in place `row` */
  add(row: number, key: Float32Array, bias: ArrayLike<number> | undefined): void {
    for (let i = 0; i < key.length; i++) {
      this.#least[i] = Math.min(this.#least[i] as number, key[i] as number)
      this.#greatest[i] = Math.max(this.#greatest[i] as number, key[i] as number)
    }
    for (let k = 0; bias && k < key.length / this.#headDim; k++) this.bias[k * pageTokens + row] = bias[k] as number
  }

  /**
   * The most that any row of a head can score for any of G queries.
   * @param queries `[G, D]`
   */
  bound(head: number, queries: Float32Array, scale: number): number {
    const D = this.#headDim
    let most = Number.NEGATIVE_INFINITY
    for (let g = 0; g < queries.length; g += D) {
      let score = 0
      for (let d = 0; d < D; d++) {
        const q = scale * (queries[g + d] as number)
        score += Math.max(q * (this.#least[head * D + d] as number), q * (this.#greatest[head * D + d] as number))
      }
      most = Math.max(most, score)
    }
    return most + Math.max(...this.bias.subarray(head * pageTokens, (head + 1) * pageTokens))
  }

  visitState(visitor: StateVisitor): void {
    for (const numbers of [this.#least, this.#greatest, this.bias]) visitor.numbers(numbers)
  }

  copy(): PageSummary {
    const copy = new PageSummary(this.#least.length / this.#headDim, this.#headDim)
    copy.#least.set(this.#least)
    copy.#greatest.set(this.#greatest)
    copy.bias.set(this.bias)
    return copy
  }
}
