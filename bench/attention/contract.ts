/** What `kvasir bench attention` measures and reports. Letters as in ARCHITECTURE.md; N is T = S of a prefill. */
import type { FloatType, StorageType } from '../../src/kernels/index.ts'
import type { Machine } from '../machine.ts'
import type { Limits, Spread } from '../measure.ts'

/**
 * `decode`: one query a head over S cached tokens. `prefill`: N tokens over themselves, causal. `memory`: a prefill, of
 * which the scratch memory is measured instead of the time.
 */
export const phases = ['decode', 'prefill', 'memory'] as const
export type Phase = (typeof phases)[number]

/** Of queries and results. */
export const queryTypes = ['f32', 'f16', 'bf16'] as const satisfies readonly FloatType[]

/** Who can take part. The first in a case is the one whose result the others must have. */
export const candidateNames = [
  'native',
  'native-avx2',
  'wasm',
  'ort-node-gqa',
  'ort-node-mha',
  'ort-node-attention',
  'ort-web-gqa',
  'ort-web-mha',
  'ort-web-attention',
] as const
export type CandidateName = (typeof candidateNames)[number]

/** One call of attention, the same for all that compute it. */
export interface AttentionCase {
  readonly phase: Phase
  /** What K and V are stored as. */
  readonly kvDtype: StorageType
  /** What the queries come as and the result goes as. */
  readonly queryDtype: FloatType
  /** H */
  readonly heads: number
  /** K */
  readonly kvHeads: number
  /** D, of queries, keys and values */
  readonly headDim: number
  /** S of a decode step, its own token included; N of a prefill */
  readonly length: number
  /** Keys that a query sees at most, its own included; null: all before it */
  readonly window: number | null
  readonly threads: number
}

/** What the call must do at least. */
export interface Work {
  /** Of K and V in their storage, of queries and of the result, each moved once. */
  readonly bytes: number
  /** Of the query-key pairs that the mask leaves: for a prefill the useful half. */
  readonly flops: number
}

/** One contestant in one case. */
export interface CandidateResult {
  readonly candidate: CandidateName
  /** What ran: `native (avx512, 2 threads)` */
  readonly description: string
  /** What it computed from: peers that know no f16 or bf16, or are slower with it, get f32. */
  readonly dtype: StorageType
  /** The largest difference of a number of its result from the same of the first contestant's, and what is allowed. */
  readonly difference: number
  readonly tolerance: number
  readonly ms: Spread
  readonly gbPerSecond: number
  readonly gflops: number
  /** The time of the limit over its own, by rounds: 1 is the limit. Null when none of ours takes part. */
  readonly shareOfLimit: number | null
  /** Its time over that of each of ours, by rounds: `{ native: 30 }`, thirty times as long. */
  readonly timesOf: Readonly<Record<string, number>>
  /** What its own instructions and threads reach at best: ours only. */
  readonly ownLimits?: Limits
  /** With a window, ours only: its time over that of all keys times the share of pairs that the window leaves. */
  readonly timeOfIdealShare?: number
}

/** One contestant's memory in one case. */
export interface MemoryResult {
  readonly candidate: CandidateName
  readonly description: string
  readonly dtype: StorageType
  /** What the process held at most during the call, beyond inputs, result and what was there before. */
  readonly scratchBytes: Spread
}

export interface Skipped {
  readonly candidate: CandidateName
  /** Why it did not take part. */
  readonly skipped: string
}

/** Rooflines of the first of ours: the larger of bytes over read bandwidth and operations over the FMA rate. */
export interface CaseLimit extends Limits {
  readonly ms: number
}

export interface CaseReport extends AttentionCase, Work {
  readonly limit?: CaseLimit
  readonly results: readonly CandidateResult[]
  /** Phase `memory`. */
  readonly memory?: readonly MemoryResult[]
  /** `4 H N^2`: what a kernel that writes its scores down would need. */
  readonly scoreBytes?: number
  readonly skipped: readonly Skipped[]
}

export interface AttentionReport {
  readonly machine: Machine
  readonly versions: Readonly<Record<string, string>>
  readonly phase: Phase
  /** Rounds, in which all contestants take turns. */
  readonly repeat: number
  readonly cases: readonly CaseReport[]
}
