/**
 * Chooses how heads forget: for each a slope over positions, and for all of them how many of the last tokens stay in any
 * case, so that what is kept of texts gets the most of what follows in them.
 */
import { keptMass, type Look, ranking } from './judge.ts'

/** A head over one text: scores of all tokens without a slope. */
export interface Scored {
  readonly scores: Float64Array
  readonly looks: readonly Look[]
  readonly contextTokens: number
}

export interface Forgetting {
  /** The last tokens that stay, as far as they fit a share of the window. */
  readonly recent: number
  /** For each head. */
  readonly slopes: readonly number[]
}

/** What counts of attention: squared, so that what a few queries need weighs more than what all glance at. */
const power = 2

/**
 * A token. The steepest forgets as a sliding window does; gentler ones than these change little over a text here, and
 * everything over a much longer one.
 */
const slopes: readonly number[] = [0, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 1, 10]
const recents: readonly number[] = [0, 8, 16, 32, 64]
/** A steeper slope must keep so much more: texts of use may be far longer than those here. */
const worthwhile = 1.02

/** Of the window: what recent tokens take at most. */
const recentShare = 0.25

/** @param heads the texts of each; @param shares of tokens removed, which count alike */
export function chooseForgetting(heads: readonly (readonly Scored[])[], shares: readonly number[]): Forgetting {
  const kept = heads.map((texts) => slopes.map((slope) => keptBy(texts, slope, shares)))
  let best: Forgetting & { readonly total: number } = { recent: 0, slopes: heads.map(() => 0), total: -1 }
  for (const [r, recent] of recents.entries()) {
    const chosen = kept.map((bySlope) => bestSlope(bySlope.map((byRecent) => byRecent[r] as number)))
    const total = chosen.reduce((sum, { value }) => sum + value, 0)
    if (total > best.total * worthwhile) best = { recent, slopes: chosen.map(({ slope }) => slope), total }
  }
  return { recent: best.recent, slopes: best.slopes }
}

function bestSlope(values: readonly number[]): { readonly slope: number; readonly value: number } {
  let best = { slope: 0, value: values[0] as number }
  for (const [s, value] of values.entries()) {
    if (value > best.value * worthwhile) best = { slope: slopes[s] as number, value }
  }
  return best
}

/** `[recents]`: attention kept, over all texts, looks and shares. */
function keptBy(texts: readonly Scored[], slope: number, shares: readonly number[]): number[] {
  const sums = recents.map(() => 0)
  for (const { scores, looks, contextTokens } of texts) {
    const sloped = scores.map((score, token) => score + slope * token)
    for (const plain of looks) {
      const look = { ...plain, attention: plain.attention.map((mass) => mass ** power) }
      const order = ranking(sloped, look.end)
      for (const share of shares) {
        const window = windowOf(share, contextTokens)
        for (const [r, recent] of recents.entries()) sums[r]! += keptMass(order, look, window, recentOf(recent, window))
      }
    }
  }
  return sums
}

export function recentOf(recent: number, window: number): number {
  return Math.min(recent, Math.floor(recentShare * window))
}

/** Tokens that stay when a share of `length` is removed. */
export function windowOf(share: number, length: number): number {
  return Math.max(1, Math.round((1 - share) * length))
}
