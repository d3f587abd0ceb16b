/** What `kvasir bench generate` measures and reports. */
import type { Machine } from '../machine.ts'
import type { Spread } from '../measure.ts'

/** Whose shapes: the numbers of layers, heads and widths of published models, and a small one to see that all works. */
export const shapeNames = ['smollm2-135m', 'qwen3-0.6b', 'tiny'] as const
export type ShapeName = (typeof shapeNames)[number]

export const weightTypes = ['f32', 'int8', 'int4'] as const
export type WeightType = (typeof weightTypes)[number]

/**
 * Who takes part: with the same file ours with a cache that keeps everything, ours with the policy `window`, the uncut
 * graph in onnxruntime-node, and for a prefill the same fed in chunks as ours is; with the same weights llama.cpp.
 */
export const candidateNames = [
  ...(['kvasir', 'kvasir-window', 'onnxruntime', 'onnxruntime-chunks'] as const),
  'node-llama-cpp',
] as const
export type CandidateName = (typeof candidateNames)[number]

export const taskKinds = ['decode', 'prefill'] as const

/** What of each may be asked for. */
export const choices = { shape: shapeNames, weights: weightTypes, candidate: candidateNames, task: taskKinds } as const

/** `decode`: a token after `tokens` others, ms a token. `prefill`: a prompt of `tokens`, ms in all. */
export interface GenerateTask {
  readonly kind: (typeof taskKinds)[number]
  readonly tokens: number
}

export interface CandidateResult {
  readonly candidate: CandidateName
  readonly ms: Spread
  /** Peak of the resident set of its process. */
  readonly peakBytes: Spread
  /** Time of onnxruntime (of the faster of its two ways) over its own; null where onnxruntime did not take part. */
  readonly speedup: number | null
  /** Its peak over that of onnxruntime (of the smaller of its two). */
  readonly peakRatio: number | null
}

export interface Skipped {
  readonly candidate: CandidateName
  /** Why it did not take part. */
  readonly skipped: string
}

export interface CaseReport extends GenerateTask {
  readonly results: readonly CandidateResult[]
  readonly skipped: readonly Skipped[]
}

/**
 * Logits of a candidate after the tokens that onnxruntime likes best. With weights in f32 beside those of onnxruntime;
 * with quantized ones, whose products round activations too, beside a run of the same weights without that rounding.
 */
export interface Agreement {
  readonly candidate: CandidateName
  /** Tokens that were compared, and how many of them it would have chosen as well. */
  readonly tokens: number
  readonly equalTokens: number
  /** Largest difference of a logit over the range of the logits, and what is allowed: twice onnxruntime's own. */
  readonly difference: number
  readonly tolerance: number
}

export interface LoadResult {
  readonly candidate: CandidateName
  /** Of all its processes. */
  readonly ms: Spread
  /** Its time over that of onnxruntime. */
  readonly ratio: number | null
}

export interface ModelReport {
  readonly shape: ShapeName
  readonly weights: WeightType
  readonly parameters: number
  /** Of the ONNX file and those beside it. */
  readonly fileBytes: number
  readonly agreement: readonly Agreement[]
  readonly load: readonly LoadResult[]
  readonly cases: readonly CaseReport[]
}

export interface GenerateReport {
  readonly machine: Machine
  readonly versions: Readonly<Record<string, string>>
  /** What ran: `{ kvasir: 'native (avx512, 2 threads), K and V in f32' }` */
  readonly descriptions: Readonly<Record<string, string>>
  readonly threads: number
  /** W of `kvasir-window`. */
  readonly window: number
  /** Rounds, in which all candidates take turns. */
  readonly repeat: number
  /** Who could have taken part and did not at all. */
  readonly absent: readonly Skipped[]
  readonly models: readonly ModelReport[]
}
