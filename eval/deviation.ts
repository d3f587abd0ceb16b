/** How far next-token logits are from others, added up over many positions. */

export interface Deviation {
  /** Next tokens that were compared. */
  readonly positions: number
  /** Mean of KL(reference || other) over them, in nats. */
  readonly meanKl: number
  /** Share of them at which both find the same token likeliest. */
  readonly topAgreement: number
  /** Answers, and how many of them are the likeliest text, token by token; 0 where nothing was asked. */
  readonly questions: number
  readonly correct: number
}

export class DeviationSum {
  #positions = 0
  #kl = 0
  #agreed = 0
  #questions = 0
  #correct = 0

  /** @returns the token that `logits` find likeliest */
  add(reference: Float32Array, logits: Float32Array): number {
    const likeliest = argmax(logits)
    this.#positions++
    this.#kl += divergence(reference, logits)
    if (argmax(reference) === likeliest) this.#agreed++
    return likeliest
  }

  addAnswer(isCorrect: boolean): void {
    this.#questions++
    if (isCorrect) this.#correct++
  }

  result(): Deviation {
    return {
      positions: this.#positions,
      meanKl: this.#kl / this.#positions,
      topAgreement: this.#agreed / this.#positions,
      questions: this.#questions,
      correct: this.#correct,
    }
  }
}

/** KL(p || q) of the softmax of two rows, in nats; rounding never makes it negative. */
export function divergence(p: Float32Array, q: Float32Array): number {
  const [logP, logQ] = [logSum(p), logSum(q)]
  let sum = 0
  for (let i = 0; i < p.length; i++) {
    const log = (p[i] as number) - logP
    sum += Math.exp(log) * (log - ((q[i] as number) - logQ))
  }
  return Math.max(0, sum)
}

/** -log of the probability of a token, in nats. */
export function surprise(logits: Float32Array, token: number): number {
  return logSum(logits) - (logits[token] as number)
}

function logSum(logits: Float32Array): number {
  const most = logits[argmax(logits)] as number
  let sum = 0
  for (let i = 0; i < logits.length; i++) sum += Math.exp((logits[i] as number) - most)
  return most + Math.log(sum)
}

/** The first of the largest. */
function argmax(values: Float32Array): number {
  let best = 0
  for (let i = 1; i < values.length; i++) if ((values[i] as number) > (values[best] as number)) best = i
  return best
}
