/** From what was measured in rounds to medians and ratios. */
import { median, type Spread, spreadOf } from '../measure.ts'
import type { CandidateName, CandidateResult, LoadResult } from './contract.ts'

export interface Measurement {
  readonly ms: number
  readonly peakBytes: number
  readonly loadMs: number
}

/** What each candidate measured in one round of a case. */
export type Round = ReadonlyMap<CandidateName, Measurement>

const stock = ['onnxruntime', 'onnxruntime-chunks'] as const

/** Ratios are taken within a round: what is compared has seen the same weather. */
export function summarise(rounds: readonly Round[]): CandidateResult[] {
  return candidatesIn(rounds).map((candidate) => ({
    candidate,
    ms: spread(rounds, (round) => round.get(candidate)?.ms),
    peakBytes: spread(rounds, (round) => round.get(candidate)?.peakBytes),
    speedup: middle(rounds, (round) => over(bestOfStock(round, 'ms'), round.get(candidate)?.ms)),
    peakRatio: middle(rounds, (round) => over(round.get(candidate)?.peakBytes, bestOfStock(round, 'peakBytes'))),
  }))
}

/** Over the rounds of all cases. */
export function summariseLoad(rounds: readonly Round[]): LoadResult[] {
  return candidatesIn(rounds).map((candidate) => ({
    candidate,
    ms: spread(rounds, (round) => round.get(candidate)?.loadMs),
    ratio: middle(rounds, (round) => over(round.get(candidate)?.loadMs, round.get('onnxruntime')?.loadMs)),
  }))
}

function candidatesIn(rounds: readonly Round[]): CandidateName[] {
  return [...new Set(rounds.flatMap((round) => [...round.keys()]))]
}

function bestOfStock(round: Round, field: 'ms' | 'peakBytes'): number | undefined {
  const values = stock.flatMap((name) => round.get(name)?.[field] ?? [])
  return values.length > 0 ? Math.min(...values) : undefined
}

function over(one: number | undefined, other: number | undefined): number | undefined {
  return one === undefined || other === undefined ? undefined : one / other
}

type Figure = (round: Round) => number | undefined

function measured(rounds: readonly Round[], figure: Figure): number[] {
  return rounds.map(figure).filter((value) => value !== undefined)
}

function middle(rounds: readonly Round[], figure: Figure): number | null {
  const values = measured(rounds, figure)
  return values.length > 0 ? median(values) : null
}

function spread(rounds: readonly Round[], figure: Figure): Spread {
  return spreadOf(measured(rounds, figure))
}
