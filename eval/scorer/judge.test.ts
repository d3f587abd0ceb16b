import { expect, test } from 'vitest'
import { chooseForgetting, recentOf, windowOf } from './forgetting.ts'
import { attentionAfter, keptMass, looksOf, rankCorrelation, ranking } from './judge.ts'
import type { HeadView } from './observe.ts'
import { targetsOf } from './targets.ts'

const look = { end: 5, attention: Float32Array.of(0.4, 0.1, 0.2, 0, 0.3, 99) }

test('attention kept is that of the last tokens and of the best others', () => {
  const order = ranking([5, 4, 3, 2, 1, 1000], look.end)
  expect(keptMass(order, look, 2, 0)).toBeCloseTo(0.5, 6)
  expect(keptMass(order, look, 2, 1)).toBeCloseTo(0.7, 6)
  expect(keptMass(order, look, 3, 9)).toBeCloseTo(0.5, 6)
  expect(keptMass(order, look, 9, 1)).toBeCloseTo(1, 6)
  expect([...ranking([1, 2, 2, 0], 4)]).toEqual([2, 1, 0, 3]) // of equals the newer one first
})

test('rank correlation is Spearman, with the mean rank for equals', () => {
  expect(rankCorrelation([1, 2, 3, 4], [10, 20, 30, 400])).toBeCloseTo(1, 10)
  expect(rankCorrelation([1, 2, 3, 4], [4, 3, 2, 1])).toBeCloseTo(-1, 10)
  expect(rankCorrelation([1, 2, 2, 4], [1, 3, 2, 4])).toBeCloseTo(4.5 / Math.sqrt(4.5 * 5), 10)
  expect(rankCorrelation([1, 1], [1, 2])).toBeNaN()
})

/** A head over 32 n tokens, the last 32 m of them continuations; masses by stretch and token. */
function headOf(n: number, m: number, mass: (stretch: number, token: number) => number): HeadView {
  const numTokens = 32 * n
  const stretches = Array.from({ length: n }, (_, s) => {
    const masses = Float32Array.from({ length: numTokens }, (_, token) => (token < 32 * (s + 1) ? mass(s, token) : 0))
    return { first: 32 * s, count: 32, masses }
  })
  return { numTokens, contextTokens: 32 * (n - m), stretches, group: 2 } as unknown as HeadView
}

test('what follows the context is looked at in a few places, the last one at its end', () => {
  const head = headOf(12, 8, (stretch) => stretch)
  expect(looksOf(head).map(({ end }) => end)).toEqual([192, 256, 320, 384])
  expect(attentionAfter(head)).toEqual(new Float64Array(128).fill(4 + 5 + 6 + 7 + 8 + 9 + 10 + 11))
})

test('a target is attention beside what is usual at that age; a peak counts more than a glow', () => {
  const even = (stretch: number) => 64 / (32 * stretch + 16.5)
  const usual = targetsOf(headOf(12, 4, even))
  for (const { value } of usual) expect(value).toBeCloseTo(0, 3)
  // Nothing is left to see of the last tokens.
  expect(usual.map(({ token }) => token)).toEqual(Array.from({ length: 320 }, (_, token) => token))
  const head = headOf(12, 4, (stretch, token) => {
    if (token === 5) return stretch === 9 ? 8 * even(stretch) : 0
    return token === 6 ? even(stretch) : token === 7 ? 0 : 0.5 * even(stretch)
  })
  const [peak, glow, nothing, other] = [5, 6, 7, 8].map((token) => targetsOf(head)[token]!.value)
  expect(peak).toBeGreaterThan(glow! + 0.5)
  expect(glow).toBeCloseTo(other! + Math.log(2), 1)
  expect(nothing).toBeLessThan(other! - 3)
})

test('heads that look at what is near get a slope or recent tokens, others none', () => {
  const score = Float64Array.from({ length: 400 }, (_, token) => (token * 7919) % 97)
  const near = new Float32Array(400).map((_, token) => (token >= 390 ? 1 : 0))
  const far = new Float32Array(400).map((_, token) => (score[token]! > 90 ? 1 : 0))
  const scored = (attention: Float32Array) => [{ scores: score, looks: [{ end: 400, attention }], contextTokens: 400 }]
  const chosen = chooseForgetting([scored(far), scored(near)], [0.5, 0.9])
  expect(chosen.slopes[0]).toBe(0)
  expect(chosen.recent === 0 ? chosen.slopes[1] : chosen.recent).toBeGreaterThan(0)
  expect(chooseForgetting([scored(far)], [0.5, 0.9])).toEqual({ recent: 0, slopes: [0] })
})

test('windows and recent tokens of a share', () => {
  expect(windowOf(0.97, 2048)).toBe(61)
  expect(windowOf(0.999, 100)).toBe(1)
  expect([recentOf(32, 1000), recentOf(32, 61)]).toEqual([32, 15])
})
