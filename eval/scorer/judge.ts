/** How good a score is: what it says of tokens of a text beside the attention that they get from what follows. */
import { importanceOf, plainImportances } from '../../src/policies/importance.ts'
import { randomScores } from '../../src/policies/random.ts'
import type { HeadView } from './observe.ts'

/** Stretches of queries after the context that are looked at: so many, spread evenly. */
const looks = 4

/** Attention of some queries after the context. */
export interface Look {
  /** Tokens up to the last of these queries. */
  readonly end: number
  /** `[N]` */
  readonly attention: Float32Array
}

export function looksOf({ stretches, contextTokens }: HeadView): Look[] {
  const after = stretches.filter(({ first }) => first >= contextTokens)
  const count = Math.min(looks, after.length)
  return Array.from({ length: count }, (_, n) => {
    const { first, count: size, masses } = after[Math.floor(((n + 1) * after.length) / count) - 1] as (typeof after)[0]
    return { end: first + size, attention: masses }
  })
}

/** Attention that each token of the context gets from all that follows `[n]`. */
export function attentionAfter({ stretches, contextTokens }: HeadView): Float64Array {
  const sums = new Float64Array(contextTokens)
  for (const { first, masses } of stretches) {
    if (first < contextTokens) continue
    for (let token = 0; token < contextTokens; token++) sums[token]! += masses[token] as number
  }
  return sums
}

/** Tokens before `end` from the highest score to the lowest; of equals the newer one first. */
export function ranking(scores: ArrayLike<number>, end: number): Uint32Array {
  const order = Uint32Array.from({ length: end }, (_, token) => token)
  return order.sort((a, b) => (scores[b] as number) - (scores[a] as number) || b - a)
}

/** Share of the attention of a look that goes to the last `recent` tokens and the best others, `window` in all. */
export function keptMass(order: Uint32Array, { end, attention }: Look, window: number, recent: number): number {
  let total = 0
  for (let token = 0; token < end; token++) total += attention[token] as number
  const firstRecent = end - Math.min(recent, window)
  let kept = 0
  for (let token = firstRecent; token < end; token++) kept += attention[token] as number
  let room = window - (end - firstRecent)
  for (let n = 0; n < order.length && room > 0; n++) {
    const token = order[n] as number
    if (token >= firstRecent) continue
    kept += attention[token] as number
    room--
  }
  return total > 0 ? kept / total : 1
}

/** Spearman's rank correlation; equals share the mean of their ranks. NaN where one of both says nothing at all. */
export function rankCorrelation(one: ArrayLike<number>, other: ArrayLike<number>): number {
  const [a, b] = [ranks(one), ranks(other)]
  const mean = (a.length - 1) / 2
  let [product, squaresA, squaresB] = [0, 0, 0]
  for (let n = 0; n < a.length; n++) {
    const [x, y] = [(a[n] as number) - mean, (b[n] as number) - mean]
    product += x * y
    squaresA += x * x
    squaresB += y * y
  }
  return product / Math.sqrt(squaresA * squaresB)
}

function ranks(values: ArrayLike<number>): Float64Array {
  const order = Uint32Array.from({ length: values.length }, (_, n) => n)
  const value = (n: number): number => values[order[n] as number] as number
  order.sort((a, b) => (values[a] as number) - (values[b] as number))
  const result = new Float64Array(values.length)
  for (let start = 0, end = 0; start < order.length; start = end) {
    while (end < order.length && value(end) === value(start)) end++
    for (let n = start; n < end; n++) result[order[n] as number] = (start + end - 1) / 2
  }
  return result
}

/** Scores of all tokens by what needs no training. */
export function plainScores({ tokens, numTokens, head }: HeadView): Map<string, ArrayLike<number>> {
  const ofHead = (all: Float32Array): Float32Array => {
    return Float32Array.from({ length: numTokens }, (_, token) => all[token * tokens.numKvHeads + head] as number)
  }
  const scores = new Map<string, ArrayLike<number>>()
  for (const name of plainImportances) {
    const { rankBy } = importanceOf(name)
    if (typeof rankBy === 'function') scores.set(name, ofHead(scored(rankBy, tokens)))
    else if (tokens.importance) scores.set(name, ofHead(tokens.importance))
  }
  scores.set('random', ofHead(scored(randomScores(0), tokens)))
  return scores.set(
    'newest',
    Float64Array.from({ length: numTokens }, (_, token) => token),
  )
}

function scored(score: ReturnType<typeof randomScores>, tokens: HeadView['tokens']): Float32Array {
  const scores = new Float32Array(tokens.numTokens * tokens.numKvHeads)
  score(tokens, scores)
  return scores
}
