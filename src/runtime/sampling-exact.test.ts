/** Each step of sampling against a slow version that follows its definition word for word. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { tokenLogprob } from './logprobs.ts'
import { createSampler } from './sampler.ts'
import { applyMinP, applyTopK, applyTopP, largest, logSumExp } from './sampling.ts'

/** Few distinct values, so that ties are common; -Infinity where an earlier step dropped a token. */
const logitsOf = fc
  .array(
    fc.oneof(
      fc.integer({ min: -6, max: 6 }).map((n) => n / 2),
      fc.constant(Number.NEGATIVE_INFINITY),
    ),
    {
      minLength: 1,
      maxLength: 30,
    },
  )
  .filter((values) => values.some((value) => value > Number.NEGATIVE_INFINITY))

function probabilities(logits: readonly number[]): number[] {
  const most = Math.max(...logits)
  const weights = logits.map((logit) => Math.exp(logit - most))
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  return weights.map((weight) => weight / total)
}

const kept = (logits: ArrayLike<number>): number[] =>
  Array.from(logits, (_, i) => i).filter((i) => logits[i]! > Number.NEGATIVE_INFINITY)

function remaining(logits: readonly number[], step: (values: Float32Array) => void): number[] {
  const values = Float32Array.from(logits)
  step(values)
  return kept(values)
}

describe('slow definitions', () => {
  it('top_p: sorted ascending and stably, tokens are dropped while their sum is at most 1 - p', () => {
    fc.assert(
      fc.property(fc.tuple(logitsOf, fc.double({ min: 0.01, max: 1, noNaN: true })), ([logits, p]) => {
        const share = probabilities(logits)
        const order = kept(logits).sort((a, b) => logits[a]! - logits[b]! || a - b)
        const sums = order.map((_, n) => order.slice(0, n + 1).reduce((sum, i) => sum + share[i]!, 0))
        // Sums that fall on the border within rounding may go either way.
        fc.pre(sums.every((sum) => Math.abs(sum - (1 - p)) > 1e-9))
        const expected = order.filter((_, n) => n === order.length - 1 || sums[n]! > 1 - p).sort((a, b) => a - b)
        expect(remaining(logits, (values) => applyTopP(values, p))).toEqual(expected)
      }),
      { numRuns: 2000 },
    )
  })

  it('top_k: tokens that fewer than k are likelier than', () => {
    fc.assert(
      fc.property(logitsOf, fc.integer({ min: 1, max: 35 }), (logits, k) => {
        const expected = kept(logits).filter((i) => logits.filter((other) => other > logits[i]!).length < k)
        expect(remaining(logits, (values) => applyTopK(values, k))).toEqual(expected)
      }),
    )
  })

  it('min_p: tokens with at least that share of the largest probability', () => {
    fc.assert(
      fc.property(logitsOf, fc.double({ min: 0.001, max: 1, noNaN: true }), (logits, minP) => {
        const share = probabilities(logits)
        const border = minP * Math.max(...share)
        fc.pre(share.every((value) => Math.abs(value / border - 1) > 1e-6 || value === Math.max(...share)))
        const expected = kept(logits).filter((i) => share[i]! >= border || share[i] === Math.max(...share))
        expect(remaining(logits, (values) => applyMinP(values, minP))).toEqual(expected)
      }),
    )
  })

  it('the largest: sorted descending and stably', () => {
    fc.assert(
      fc.property(logitsOf, fc.nat(35), (logits, count) => {
        const order = Array.from(logits, (_, i) => i).sort((a, b) => logits[b]! - logits[a]! || a - b)
        expect(largest(Float32Array.from(logits), count)).toEqual(order.slice(0, count))
      }),
    )
  })

  it('logprobs: logarithms of the softmax, the rank among all, and the likeliest', () => {
    fc.assert(
      fc.property(logitsOf, fc.nat(29), fc.nat(5), (logits, pick, count) => {
        const token = pick % logits.length
        const share = probabilities(logits)
        const result = tokenLogprob(Float32Array.from(logits), token, count)
        expect(Math.exp(result.logprob)).toBeCloseTo(share[token]!, 6)
        expect(result.rank).toBe(1 + logits.filter((logit) => logit > logits[token]!).length)
        expect(result.top.map(({ logprob }) => logprob)).toEqual(
          [...logits]
            .sort((a, b) => b - a)
            .slice(0, count)
            .map((logit) => logit - logSumExp(Float32Array.from(logits))),
        )
      }),
    )
  })
})

describe('the whole pipeline', () => {
  /** Bias, penalties, temperature, min_p, top_k, top_p, in plain words over plain numbers. */
  function slowDistribution(logits: readonly number[]): number[] {
    const counts = new Map([
      [0, 3],
      [4, 1],
    ])
    let values = logits.map((logit, i) => (i === 3 ? logit + 1.5 : logit))
    values = values.map((logit, i) => (i === 0 || i === 4 || i === 5 ? (logit > 0 ? logit / 1.3 : logit * 1.3) : logit))
    values = values.map((logit, i) => logit - 0.4 * (counts.get(i) ?? 0) - (counts.has(i) ? 0.2 : 0))
    values = values.map((logit) => logit / 0.7)
    const best = Math.max(...probabilities(values))
    const drop = (keep: (i: number) => boolean) =>
      values.map((logit, i) => (keep(i) ? logit : Number.NEGATIVE_INFINITY))
    const share = probabilities(values)
    values = drop((i) => share[i]! >= 0.05 * best)
    const sorted = [...values].sort((a, b) => b - a)
    values = drop((i) => values[i]! >= sorted[4]!)
    const left = probabilities(values)
    const order = kept(values).sort((a, b) => values[a]! - values[b]! || a - b)
    let sum = 0
    for (const i of order.slice(0, -1)) {
      sum += left[i]!
      if (sum > 1 - 0.9) break
      values[i] = Number.NEGATIVE_INFINITY
    }
    return probabilities(values)
  }

  it('draws with the probabilities that the definitions give', () => {
    const logits = [3, 2.5, 2, 0.5, -1, 2, 1.7, 2.2]
    const sampler = createSampler({
      temperature: 0.7,
      topK: 5,
      topP: 0.9,
      minP: 0.05,
      repetitionPenalty: 1.3,
      frequencyPenalty: 0.4,
      presencePenalty: 0.2,
      logitBias: { 3: 1.5 },
      seed: 11,
    })
    sampler.observe([5]) // the prompt: counts for the repetition penalty alone
    for (const token of [0, 0, 4, 0]) sampler.accept(token)
    const counts = new Array<number>(logits.length).fill(0)
    const draws = 40_000
    for (let n = 0; n < draws; n++) counts[sampler.sample(Float32Array.from(logits))]!++
    const expected = slowDistribution(logits)
    expect(counts.map((count) => count > 0)).toEqual(expected.map((probability) => probability > 0))
    for (const [i, probability] of expected.entries()) {
      const deviation = Math.sqrt((probability * (1 - probability)) / draws)
      expect(Math.abs(counts[i]! / draws - probability)).toBeLessThanOrEqual(5 * deviation)
    }
  })
})
