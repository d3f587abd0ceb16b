/**
 * The steps from logits to a token, one function each. They change `logits` `[V]` in place; -Infinity means "cannot be
 * drawn". Order and definitions are those of vLLM: repetition penalty, then greedy or temperature, min_p, top_k, top_p.
 */
import type { Random } from './random.ts'

/** Index of the largest logit, the first of equals. */
export function argmax(logits: Float32Array): number {
  let best = 0
  for (let i = 1; i < logits.length; i++) if (logits[i]! > logits[best]!) best = i
  return best
}

/** Makes the tokens of `seen` less likely: positive logits are divided by the penalty, others multiplied. */
export function applyRepetitionPenalty(logits: Float32Array, seen: Iterable<number>, penalty: number): void {
  for (const token of seen) {
    const logit = logits[token]!
    logits[token] = logit > 0 ? logit / penalty : logit * penalty
  }
}

export function applyTemperature(logits: Float32Array, temperature: number): void {
  for (let i = 0; i < logits.length; i++) logits[i] = logits[i]! / temperature
}

/** Drops tokens less likely than `minP` times the likeliest. */
export function applyMinP(logits: Float32Array, minP: number): void {
  const threshold = logits[argmax(logits)]! + Math.log(minP)
  dropBelow(logits, threshold)
}

/** Keeps the `topK` largest logits, and all that equal the smallest of them. */
export function applyTopK(logits: Float32Array, topK: number): void {
  if (topK >= logits.length) return
  const sorted = Float32Array.from(logits).sort()
  dropBelow(logits, sorted[sorted.length - topK]!)
}

/**
 * Drops the least likely tokens while their summed probability is at most 1 - topP. The likeliest always stays; of
 * equals, those with the lower index go first.
 */
export function applyTopP(logits: Float32Array, topP: number): void {
  const largest = logits[argmax(logits)]!
  const order: number[] = []
  for (let i = 0; i < logits.length; i++) if (logits[i]! > Number.NEGATIVE_INFINITY) order.push(i)
  order.sort((a, b) => logits[a]! - logits[b]! || a - b)
  const weights = order.map((i) => Math.exp(logits[i]! - largest))
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  let dropped = 0
  for (let n = 0; n < order.length - 1; n++) {
    dropped += weights[n]! / total
    if (dropped > 1 - topP) return
    logits[order[n]!] = Number.NEGATIVE_INFINITY
  }
}

/** Draws an index with the probabilities of softmax. */
export function draw(logits: Float32Array, random: Random): number {
  const likeliest = argmax(logits)
  const largest = logits[likeliest]!
  let total = 0
  for (const logit of logits) total += Math.exp(logit - largest)
  let rest = random() * total
  for (let i = 0; i < logits.length; i++) {
    rest -= Math.exp(logits[i]! - largest)
    if (rest < 0) return i
  }
  return likeliest // only when rounding left a rest
}

function dropBelow(logits: Float32Array, threshold: number): void {
  for (let i = 0; i < logits.length; i++) if (logits[i]! < threshold) logits[i] = Number.NEGATIVE_INFINITY
}
