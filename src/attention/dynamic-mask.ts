/**
 * Dynamic mask attention over a full history: each query sees only the visible keys that their bias selects, and the
 * bias is added to its logits (arXiv:2508.02124; names and layout of flash_dmattn). It keeps everything, so it states
 * independently what a linear cache computes in constant memory.
 */
import type { Tensor } from 'onnxruntime-common'
import type { AttendArgs, Kernels } from '../kernels/index.ts'
import { checkChoice, checkInteger } from '../tensor/check.ts'
import { kernelsFor } from './backends.ts'
import {
  type AttentionState,
  allocateResults,
  attendEach,
  finish,
  type Problem,
  pauses,
  readProblem,
  tokenMajor,
} from './core.ts'
import { type Bias, readSelectingBias } from './dynamic-mask-bias.ts'
import { lifetimesOf, type MaskKind, maskKinds, type Selection, selectRows } from './dynamic-mask-selection.ts'
import { checkBoolean, checkFloat, checkOptions, type RunOptions, runKeys } from './options.ts'

export interface DynamicMaskOptions extends RunOptions {
  /** W: how many keys a query sees with `topk` (default 2048). */
  readonly keepWindowSize?: number
  /** `topk` (default): the W visible keys of highest bias; `relu`: those with a bias above 0. */
  readonly maskKind?: MaskKind
  /** Keys in blocks of so many: all of a block stay where more than half were selected, else none (default 1: off). */
  readonly blockSize?: number
  /** Query t sees keys up to t + S - T, the last query all (default true). */
  readonly isCausal?: boolean
  /** Factor of q . k (default 1 / sqrt(D)). */
  readonly softmaxScale?: number
  /** Whether the bias is added to the logits, or only selects (default true). */
  readonly addBias?: boolean
}

const keys = ['keepWindowSize', 'maskKind', 'blockSize', 'isCausal', 'softmaxScale', 'addBias', ...runKeys]

/** From so many queries on, working out when each key falls out costs less than ranking anew for each query. */
const manyQueries = 16

/**
 * Each query sees the keys of highest bias alone, as in flash_dmattn.
 * @param query `[B, T, H, D]` float32, float16, or uint16 with `dtype: 'bf16'`
 * @param key `[B, S, K, D]` of the same type, H a multiple of K
 * @param value `[B, S, K, E]` of the same type
 * @param bias `[B | 1, K | H | 1, T | 1, S]` f32: one row for all queries, or one for each. Higher wins, of equals the
 * later key; -Infinity hides a key
 * @returns `[B, T, H, E]`; with `returnLse` also `[B, T, H]` f32. A query that sees nothing gives zeros.
 * @throws KvasirError as `attention` does; NaN or +Infinity in the bias
 */
export async function dynamicMaskAttention(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  bias: Tensor,
  options?: DynamicMaskOptions & { readonly returnLse?: false },
): Promise<Tensor>
export async function dynamicMaskAttention(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  bias: Tensor,
  options: DynamicMaskOptions & { readonly returnLse: true },
): Promise<AttentionState>
export async function dynamicMaskAttention(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  bias: Tensor,
  options?: DynamicMaskOptions,
): Promise<Tensor | AttentionState>
export async function dynamicMaskAttention(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  bias: Tensor,
  options: DynamicMaskOptions = {},
): Promise<Tensor | AttentionState> {
  checkOptions('dynamicMaskAttention', options, keys)
  const selection = checkSelection(options)
  const names = { query: 'query', key: 'key', value: 'value' }
  const problem = readProblem(names, { query, key, value }, 'token-major', options.dtype)
  const { softmaxScale = 1 / Math.sqrt(problem.D), addBias = true } = options
  checkFloat('softmaxScale', softmaxScale)
  checkBoolean('addBias', addBias)
  const selecting = readSelectingBias(bias, problem)
  const kernels = kernelsFor(options)
  const { B, T, H, E, storage } = problem
  const results = allocateResults(storage, B * T, problem, options.returnLse)
  const plan: Plan = { problem, selection, bias: selecting, addBias, softmaxScale, kernels }
  const pause = pauses()
  for (let b = 0; b < B; b++) {
    const tiles = sharedBy(plan) ? [[0, T] as const] : Array.from({ length: T }, (_, t) => [t, 1] as const)
    for (const [t, count] of tiles) {
      const [from, to] = [(b * T + t) * H, (b * T + t + count) * H]
      await attendEach(kernels, [
        {
          ...callOf(plan, b, t, count),
          query: problem.query.subarray(from * problem.D, to * problem.D),
          output: results.output.subarray(from * E, to * E),
          lse: results.lse?.subarray(from, to),
        },
      ])
      await pause()
    }
  }
  return finish(results, [B, T, H, E])
}

interface Plan {
  readonly problem: Problem
  readonly selection: Selection
  readonly bias: Bias
  readonly addBias: boolean
  readonly softmaxScale: number
  readonly kernels: Kernels
}

function checkSelection(options: DynamicMaskOptions): Selection {
  const { keepWindowSize = 2048, maskKind = 'topk', blockSize = 1, isCausal = true } = options
  checkInteger('attention', 'keepWindowSize', keepWindowSize, 1, 2 ** 31 - 2)
  checkChoice('attention', 'maskKind', maskKind, maskKinds)
  checkInteger('attention', 'blockSize', blockSize, 1, 2 ** 31 - 2)
  checkBoolean('isCausal', isCausal)
  return { keepWindowSize, maskKind, blockSize, isCausal }
}

/** Whether one call can serve all queries. */
function sharedBy({ problem: { T, K }, bias, selection }: Plan): boolean {
  if (T <= 1 || bias.numRows > 1 || bias.numHeads !== K) return false
  if (!selection.isCausal) return true
  if (selection.blockSize > 1) return false
  return selection.maskKind === 'relu' || T >= manyQueries
}

/** The call for `count` queries from t on, without their arrays. */
function callOf(plan: Plan, b: number, t: number, count: number): Omit<AttendArgs, 'query' | 'output'> {
  const { problem, bias, selection, addBias, softmaxScale, kernels } = plan
  const { T, S, H, K, D, E, storage } = problem
  const numVisible = selection.isCausal ? Math.max(0, Math.min(S, t + count + S - T)) : S
  const scores = bias.scores(b, t)
  const rows = { ...tokenMajor(problem, problem.key, problem.value, b * S, S), storage, firstPosition: 0 }
  const added = addBias ? scores : undefined
  const head = {
    ...{ numTokens: count, numHeads: H, numKvHeads: K, headDim: D, valueDim: E, scale: softmaxScale },
    ...{ firstPosition: S - T + t, queryStorage: storage },
    // One query has its visible keys listed; of several, each sees up to its own.
    right: count > 1 && selection.isCausal ? 0 : undefined,
  }
  if (count > 1 && selection.isCausal && selection.maskKind === 'topk') {
    const deaths = lifetimesOf(kernels, scores, K, S, selection.keepWindowSize)
    return { ...head, segments: [{ ...rows, lengths: new Int32Array(K).fill(S), bias: added, deaths }] }
  }
  const chosen = selectRows(kernels, scores, bias.numHeads, S, numVisible, selection)
  if (bias.numHeads === K) return { ...head, segments: [{ ...rows, ...chosen, bias: added }] }
  // Heads of one group that select for themselves: what is not chosen is masked away.
  const values = new Float32Array(H * S).fill(Number.NEGATIVE_INFINITY)
  for (let h = 0; h < H; h++) {
    for (const j of chosen.rows.subarray(h * S, h * S + (chosen.lengths[h] as number))) {
      values[h * S + j] = added?.[h * S + j] ?? 0
    }
  }
  const mask = { values, headStride: S, tokenStride: 0 }
  return { ...head, segments: [{ ...rows, lengths: new Int32Array(K).fill(numVisible), mask }] }
}
