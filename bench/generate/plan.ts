/** From options to what is run, and whether the machine has the memory for it. */
import { availableParallelism } from 'node:os'
import { checkChoice, checkInteger, checkKeys } from '../../src/tensor/check.ts'
import { type CandidateName, choices, type GenerateTask, type ShapeName, type WeightType } from './contract.ts'
import type { Task } from './messages.ts'
import { kvBytesPerToken, maxPositions, shapes } from './shapes.ts'

export interface GenerateBenchOptions {
  readonly shapes?: readonly ShapeName[]
  readonly weights?: readonly WeightType[]
  /** Who takes part (default: all that are installed). */
  readonly candidates?: readonly CandidateName[]
  /** Default: both. */
  readonly tasks?: readonly GenerateTask['kind'][]
  /** Installs node-llama-cpp in the cache folder where it is not there. */
  readonly installsPeers?: boolean
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
  readonly candidates: readonly CandidateName[]
  readonly window: number
  readonly threads: number
  readonly repeat: number
  /** For the steps of one decode. */
  readonly budgetMs: number
}

/** Tokens of a prompt that ours reads at once, and `onnxruntime-chunks`. */
export const chunkSize = 512
/** Steps of a decode before those that count, and how many these are at least and at most. */
export const stepCounts = { warmUp: 4, fewest: 3, most: 24 }
/** Tokens of the text that wakes everything, and is forgotten. */
export const greeting = 8
/** Room behind the longest context. */
const maxContext = maxPositions - 64

/** @throws KvasirError `invalid-argument`: unknown options and names, sizes out of range */
export function planBench(options: GenerateBenchOptions): Plan {
  checkKeys('bench', 'benchGenerate', options, knownOptions)
  const { isQuick = false, weights = choices.weights, window = 2048, threads = availableParallelism() } = options
  const { candidates = choices.candidate, tasks: kinds = choices.task } = options
  const {
    shapes: chosen = isQuick ? (['tiny'] as const) : (['smollm2-135m', 'qwen3-0.6b'] as const),
    contexts = isQuick ? [64, 256] : [1024, 8192, 32_768],
    repeat = isQuick ? 1 : 3,
  } = options
  const asked = { shape: chosen, weights, candidate: candidates, task: kinds }
  for (const [what, values] of Object.entries(asked)) {
    for (const name of values) checkChoice('bench', what, name, choices[what as keyof typeof choices])
  }
  for (const value of contexts) checkInteger('bench', 'context', value, 1, maxContext)
  for (const [name, value] of Object.entries({ window, threads, repeat })) checkInteger('bench', name, value, 1)
  const decode = contexts.map((tokens) => ({ kind: 'decode', tokens }) as const)
  const prefill = { kind: 'prefill', tokens: isQuick ? 128 : 4096 } as const
  const tasks = [...decode, prefill].filter(({ kind }) => kinds.includes(kind))
  return { shapes: chosen, weights, tasks, candidates, window, threads, repeat, budgetMs: isQuick ? 100 : 2000 }
}

const knownOptions = [
  ...['shapes', 'weights', 'candidates', 'tasks', 'installsPeers', 'contexts', 'window', 'threads', 'repeat'],
  ...['isQuick', 'signal', 'onProgress'],
]

/** Chunks are something for prompts. */
export function candidatesOf({ kind }: GenerateTask, candidates: readonly CandidateName[]): readonly CandidateName[] {
  return kind === 'prefill' ? candidates : candidates.filter((name) => name !== 'onnxruntime-chunks')
}

/** Tokens that the sequence of a task holds at most. */
export function roomOf(task: Task): number {
  if (task.kind === 'agree') return task.prompt + task.steps
  const { warmUp, most } = stepCounts
  return Math.max(greeting, task.tokens, 1 + warmUp + most)
}

/**
 * What a process will hold at least: weights and their repacked copies, K and V, and the logits of all tokens that the
 * uncut graph computes of a prompt, which are copied from the session's memory into an array.
 */
export function neededBytes(
  candidate: CandidateName,
  { kind, tokens }: GenerateTask,
  { shape, window, fileBytes }: { shape: ShapeName; window: number; fileBytes: number },
): number {
  const kept = candidate === 'kvasir-window' ? Math.min(window, tokens) : tokens
  const cache = kvBytesPerToken(shapes[shape]) * kept
  if (candidate.startsWith('kvasir')) return 2 * fileBytes + cache
  if (candidate === 'node-llama-cpp') return 2 * fileBytes + cache / 2 // in f16
  if (kind === 'decode') return 2 * fileBytes + 2 * cache // past and present
  const rows = candidate === 'onnxruntime' ? tokens : Math.min(chunkSize, tokens)
  return 2 * fileBytes + 2 * (cache + 4 * shapes[shape].vocab_size * rows)
}
