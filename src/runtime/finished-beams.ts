/** The best complete texts of a beam search so far, and whether one that is still open can be better. */
import type { TokenLogprob } from './contract.ts'
import type { Request } from './request.ts'

export interface Hypothesis {
  /** Generated tokens, an EOS included. */
  readonly tokens: readonly number[]
  /** Sum of their processed log probabilities. */
  readonly sum: number
  /** One a token, when asked for. */
  readonly logprobs: readonly TokenLogprob[]
}

type Rules = Pick<Request, 'numBeams' | 'lengthPenalty' | 'earlyStopping' | 'maxNewTokens'>

export class FinishedBeams {
  readonly #rules: Rules
  /** Best first, at most `numBeams`. */
  readonly #kept: (Hypothesis & { readonly score: number })[] = []
  #isClosed = false

  constructor(rules: Rules) {
    this.#rules = rules
  }

  /** Whether the search has ended before its last token: open beams no longer count. */
  get isClosed(): boolean {
    return this.#isClosed
  }

  add(hypothesis: Hypothesis): void {
    const score = this.#score(hypothesis.sum, hypothesis.tokens.length)
    const at = this.#kept.findIndex((other) => score > other.score)
    this.#kept.splice(at < 0 ? this.#kept.length : at, 0, { ...hypothesis, score })
    if (this.#kept.length > this.#rules.numBeams) this.#kept.pop()
  }

  /** After a step to `length` tokens whose best candidate has the sum `best`. */
  isDone(best: number, length: number): boolean {
    const { numBeams, earlyStopping, lengthPenalty, maxNewTokens } = this.#rules
    if (this.#kept.length < numBeams) return false
    // With a positive penalty a longer text has a better score at the same sum, so the longest possible bounds them.
    const bound = earlyStopping === 'never' && lengthPenalty > 0 ? maxNewTokens : length
    this.#isClosed = earlyStopping === true || this.#kept.at(-1)!.score >= this.#score(best, bound)
    return this.#isClosed
  }

  best(count: number): readonly (Hypothesis & { readonly score: number })[] {
    return this.#kept.slice(0, count)
  }

  #score(sum: number, length: number): number {
    return length === 0 ? sum : sum / length ** this.#rules.lengthPenalty
  }
}
