/**
 * What a scorer learns to tell: how much attention a token gets from later ones, beside what tokens of its age usually
 * get. Attention is counted in shares of an even spread, since each query spreads one whole over ever more tokens.
 *
 * Of stretches of queries the power mean counts, not the mean: a token that one question needs, and nothing else, gets
 * less in all than many that everything glances at, but losing it costs the answer.
 */
import type { HeadView } from './observe.ts'

/** Queries so near are left out, in stretches: what they look at is kept by age alone. */
const nearStretches = 2
/** Of the usual: a token that gets nothing is still counted as getting this. */
const floor = 1e-3
/** Of the mean over stretches: between the mean (1) and the most that any stretch gave (infinity). */
const power = 4

export interface Target {
  readonly token: number
  /** Natural logarithm of the attention that it got over what is usual. */
  readonly value: number
  /** Share of the text that came after it. */
  readonly weight: number
}

export function targetsOf({ stretches, numTokens, group }: HeadView): Target[] {
  const relative = stretches.map(({ masses, first, count }) => {
    // A query at position p sees p + 1 tokens.
    const even = (count * group) / (first + (count + 1) / 2)
    return Float64Array.from(masses, (mass) => (mass / even) ** power)
  })
  const usual = usualByAge(relative, stretches)
  const targets: Target[] = []
  for (const [own, { first, count }] of stretches.entries()) {
    for (let token = first; token < first + count; token++) {
      let [got, expected] = [0, 0]
      for (let s = own + nearStretches; s < stretches.length; s++) {
        got += (relative[s] as Float64Array)[token] as number
        expected += usual[s - own] as number
      }
      if (!(expected > 0)) continue
      const value = Math.log(got / expected + floor ** power) / power
      targets.push({ token, value, weight: 1 - (first + nearStretches * count) / numTokens })
    }
  }
  return targets
}

/** By the number of stretches between token and query: the mean over all tokens. */
function usualByAge(relative: readonly Float64Array[], stretches: HeadView['stretches']): Float64Array {
  const [sums, counts] = [new Float64Array(stretches.length), new Float64Array(stretches.length)]
  for (const [own, { first, count }] of stretches.entries()) {
    for (let s = own + nearStretches; s < stretches.length; s++) {
      for (let token = first; token < first + count; token++)
        sums[s - own]! += (relative[s] as Float64Array)[token] as number
      counts[s - own]! += count
    }
  }
  return sums.map((sum, age) => (counts[age] ? sum / (counts[age] as number) : 0))
}
