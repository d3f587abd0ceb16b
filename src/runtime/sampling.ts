/**
 * The steps from logits to a token, one function each. They change `logits` `[V]` in place; -Infinity means "cannot be
 * drawn". Definitions are those of vLLM; `sampler.ts` has their order.
 */
import type { Random } from './random.ts'

/** Index of the largest logit, the first of equals. */
export function argmax(logits: Float32Array): number {
  let best = 0
  for (let i = 1; i < logits.length; i++) if (logits[i]! > logits[best]!) best = i
  return best
}

/** These tokens cannot be drawn. */
export function applyBan(logits: Float32Array, tokens: Iterable<number>): void {
  for (const token of tokens) if (token < logits.length) logits[token] = Number.NEGATIVE_INFINITY
}

/** The last token of each sequence whose others are the end of the text can't be drawn. */
export function applyBadWords(
  logits: Float32Array,
  text: readonly number[],
  words: readonly (readonly number[])[],
): void {
  for (const word of words) {
    const start = text.length - word.length + 1
    const isBegun = start >= 0 && word.every((token, i) => i === word.length - 1 || token === text[start + i])
    if (isBegun) logits[word.at(-1)!] = Number.NEGATIVE_INFINITY
  }
}

export function applyLogitBias(logits: Float32Array, bias: ReadonlyMap<number, number>): void {
  for (const [token, value] of bias) logits[token] = logits[token]! + value
}

/** Makes the tokens of `seen` less likely: positive logits are divided by the penalty, others multiplied. */
export function applyRepetitionPenalty(logits: Float32Array, seen: Iterable<number>, penalty: number): void {
  for (const token of seen) {
    const logit = logits[token]!
    logits[token] = logit > 0 ? logit / penalty : logit * penalty
  }
}

/** Takes `frequency` off a token's logit for each time that it was generated, and `presence` once. */
export function applyCountPenalties(
  logits: Float32Array,
  counts: ReadonlyMap<number, number>,
  presence: number,
  frequency: number,
): void {
  for (const [token, count] of counts) logits[token] = logits[token]! - frequency * count - presence
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
  // Values are sorted and not indices: a native sort of floats is many times faster over a whole vocabulary.
  const sorted = logits.filter((logit) => logit > Number.NEGATIVE_INFINITY).sort()
  const largest = sorted[sorted.length - 1]!
  let total = 0
  for (const logit of sorted) total += Math.exp(logit - largest)
  let count = 0
  let dropped = 0
  while (count < sorted.length - 1) {
    dropped += Math.exp(sorted[count]! - largest) / total
    if (dropped > 1 - topP) break
    count++
  }
  const border = sorted[count]!
  let ties = count - sorted.indexOf(border)
  dropBelow(logits, border)
  for (let i = 0; ties > 0; i++) {
    if (logits[i] !== border) continue
    logits[i] = Number.NEGATIVE_INFINITY
    ties--
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

/** log(sum(exp(logits))), without overflow. */
export function logSumExp(logits: Float32Array): number {
  const largest = logits[argmax(logits)]!
  let total = 0
  for (const logit of logits) total += Math.exp(logit - largest)
  return largest + Math.log(total)
}

/** Indices of the `count` largest values, the largest first; of equals, the lower index first. */
export function largest(values: Float32Array | Float64Array, count: number): number[] {
  const best: number[] = []
  for (let i = 0; i < values.length && count > 0; i++) {
    if (best.length === count && !(values[i]! > values[best[count - 1]!]!)) continue
    if (best.length === count) best.pop()
    let at = best.length
    while (at > 0 && values[i]! > values[best[at - 1]!]!) at--
    best.splice(at, 0, i)
  }
  return best
}

function dropBelow(logits: Float32Array, threshold: number): void {
  for (let i = 0; i < logits.length; i++) if (logits[i]! < threshold) logits[i] = Number.NEGATIVE_INFINITY
}
