/** From options to what is run, and whether the machine has the memory for it. */
import { availableParallelism } from 'node:os'
import { checkChoice, checkInteger, checkKeys } from '../../src/tensor/check.ts'
import {
  type CandidateName,
  candidateNames,
  type GenerateTask,
  type ShapeName,
  shapeNames,
  type WeightType,
  weightTypes,
} from './contract.ts'
import { kvBytesPerToken, maxPositions, shapes } from './shapes.ts'

export interface GenerateBenchOptions {
  readonly shapes?: readonly ShapeName[]
  readonly weights?: readonly WeightType[]
  /** Tokens that a decode step looks back on. */
  readonly contexts?: readonly number[]
  /** W of `kvasir-window` (default 2048). */
  readonly window?: number
  readonly threads?: number
  /** Rounds (default 3, quick 1). */
  readonly repeat?: number
  /** Short contexts of the shape `tiny`: to see that all works. */
  readonly isQuick?: boolean
  readonly signal?: AbortSignal
  /** Steps done of all, and what comes next. */
  readonly onProgress?: (done: number, total: number, what: string) => void
}

export interface Plan {
  readonly shapes: readonly ShapeName[]
  readonly weights: readonly WeightType[]
  readonly tasks: readonly GenerateTask[]
  readonly window: number
  readonly threads: number
  readonly repeat: number
  /** For the steps of one decode. */
  readonly budgetMs: number
}

/** Tokens of a prompt that ours reads at once, and `onnxruntime-chunks`. */
export const chunkSize = 512
/** Room behind the longest context. */
const maxContext = maxPositions - 64

/** @throws KvasirError `invalid-argument`: unknown options and names, sizes out of range */
export function planBench(options: GenerateBenchOptions): Plan {
  const known = ['shapes', 'weights', 'contexts', 'window', 'threads', 'repeat', 'isQuick', 'signal', 'onProgress']
  checkKeys('bench', 'benchGenerate', options, known)
  const { isQuick = false, weights = weightTypes, window = 2048, threads = availableParallelism() } = options
  const {
    shapes: chosen = isQuick ? (['tiny'] as const) : (['smollm2-135m', 'qwen3-0.6b'] as const),
    contexts = isQuick ? [64, 256] : [1024, 8192, 32_768],
    repeat = isQuick ? 1 : 3,
  } = options
  for (const name of chosen) checkChoice('bench', 'shape', name, shapeNames)
  for (const name of weights) checkChoice('bench', 'weights', name, weightTypes)
  for (const value of contexts) checkInteger('bench', 'context', value, 1, maxContext)
  for (const [name, value] of Object.entries({ window, threads, repeat })) checkInteger('bench', name, value, 1)
  const decode = contexts.map((tokens) => ({ kind: 'decode', tokens }) as const)
  const prefill = { kind: 'prefill', tokens: isQuick ? 128 : 4096 } as const
  const tasks = [...decode, prefill]
  return { shapes: chosen, weights, tasks, window, threads, repeat, budgetMs: isQuick ? 100 : 2000 }
}

/** Chunks are something for prompts. */
export function candidatesOf({ kind }: GenerateTask): readonly CandidateName[] {
  return kind === 'prefill' ? candidateNames : candidateNames.filter((name) => name !== 'onnxruntime-chunks')
}

/**
 * What a process will hold at least: weights and their repacked copies, K and V, and the logits of all tokens that the
 * uncut graph computes of a prompt. What onnxruntime-node gives out is copied from the session's memory into an array.
 */
export function neededBytes(
  candidate: CandidateName,
  { kind, tokens }: GenerateTask,
  { shape, window, fileBytes }: { shape: ShapeName; window: number; fileBytes: number },
): number {
  const kept = candidate === 'kvasir-window' ? Math.min(window, tokens) : tokens
  const cache = kvBytesPerToken(shapes[shape]) * kept
  if (candidate.startsWith('kvasir')) return 2 * fileBytes + cache
  if (kind === 'decode') return 2 * fileBytes + 3 * cache // past, present, and the array of it
  const rows = candidate === 'onnxruntime' ? tokens : Math.min(chunkSize, tokens)
  return 2 * fileBytes + 2 * (cache + 4 * shapes[shape].vocab_size * rows)
}
