/** From what was measured in rounds to medians, shares and ratios. */
import { type Limits, median, type Spread, spreadOf } from '../measure.ts'
import { candidates } from './candidates.ts'
import { countWork } from './cases.ts'
import type { AttentionCase, CandidateName, CandidateResult, CaseLimit, MemoryResult, Work } from './contract.ts'
import type { Measurement, SessionFacts } from './session.ts'

/** What each contestant measured in one round. */
export type Round = Map<string, Measurement>

type Facts = ReadonlyMap<CandidateName, SessionFacts>

/** The limit is what the first of ours finds the machine to give; one that fell out on the way has no result. */
export function summarise(
  attentionCase: AttentionCase,
  facts: Facts,
  rounds: readonly Round[],
): { limit?: CaseLimit; results: CandidateResult[] } {
  const work = countWork(attentionCase)
  const ours = [...facts.keys()].filter((name) => candidates[name].isOurs)
  const [own] = ours
  const limits = own && limitsOf(own, rounds)
  const limit = limits && { ...limits, ms: middle(rounds, (round) => limitMs(work, round, own)) }
  const results = [...facts].map(([name, fact]): CandidateResult => {
    const ms = spread(rounds.map((round) => round.get(name)?.ms ?? Number.NaN))
    const { description, dtype, difference, tolerance } = fact
    return {
      ...{ candidate: name, description, dtype, difference, tolerance, ms },
      ...{ gbPerSecond: work.bytes / ms.median / 1e6, gflops: work.flops / ms.median / 1e6 },
      shareOfLimit: own === undefined ? null : middle(rounds, (round) => limitMs(work, round, own) / msOf(round, name)),
      timesOf: Object.fromEntries(
        ours.map((other) => [other, middle(rounds, (round) => msOf(round, name) / msOf(round, other))]),
      ),
      ownLimits: candidates[name].isOurs ? limitsOf(name, rounds) : undefined,
      timeOfIdealShare: idealShare(attentionCase, name, rounds),
    }
  })
  return { limit, results }
}

export function summariseMemory(facts: Facts, bytes: ReadonlyMap<CandidateName, readonly number[]>): MemoryResult[] {
  return [...bytes].map(([candidate, values]) => {
    const { description, dtype } = facts.get(candidate)!
    return { candidate, description, dtype, scratchBytes: spread(values) }
  })
}

/** The larger of the time of the bytes and that of the operations. */
export function roofline({ bytes, flops }: Work, { readGbPerSecond, fmaGflops }: Limits): number {
  return Math.max(bytes / readGbPerSecond, flops / fmaGflops) / 1e6
}

function limitMs(work: Work, round: Round, own: string): number {
  const limits = round.get(own)?.limits
  return limits ? roofline(work, limits) : Number.NaN
}

function msOf(round: Round, name: string): number {
  return round.get(name)?.ms ?? Number.NaN
}

function limitsOf(name: string, rounds: readonly Round[]): Limits | undefined {
  if (!rounds.some((round) => round.get(name)?.limits)) return undefined
  const take = (field: keyof Limits) => middle(rounds, (round) => round.get(name)?.limits?.[field] ?? Number.NaN)
  return { readGbPerSecond: take('readGbPerSecond'), fmaGflops: take('fmaGflops') }
}

/** Time with the window over the time without it times the share of query-key pairs that the window leaves. */
function idealShare(attentionCase: AttentionCase, name: string, rounds: readonly Round[]): number | undefined {
  if (!rounds.some((round) => round.get(name)?.withoutWindowMs)) return undefined
  const share = countWork(attentionCase).flops / countWork({ ...attentionCase, window: null }).flops
  return middle(rounds, (round) => msOf(round, name) / ((round.get(name)?.withoutWindowMs ?? Number.NaN) * share))
}

function middle(rounds: readonly Round[], value: (round: Round) => number): number {
  return median(rounds.map(value).filter(isMeasured))
}

/** Slow ones are not timed in every round. */
const isMeasured = (value: number) => !Number.isNaN(value)

function spread(all: readonly number[]): Spread {
  return spreadOf(all.filter(isMeasured))
}
