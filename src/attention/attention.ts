/** `attention`: every form of attention under one name. */
import type { Tensor } from 'onnxruntime-common'
import { checkKeys, describe } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import { kernelsFor } from './backends.ts'
import {
  type AttentionState,
  allocateResults,
  attendEach,
  finish,
  type Problem,
  readProblem,
  toCall,
  tokenMajor,
} from './core.ts'
import { type FloatList, type IntegerList, integerList } from './lists.ts'
import { readBias } from './masks.ts'
import {
  checkForm,
  checkOptions,
  type RunOptions,
  runKeys,
  type SinkOptions,
  sinkKeys,
  type Window,
} from './options.ts'
import { typedData } from './tensors.ts'

export interface AttentionOptions extends RunOptions, SinkOptions {
  /** Query t sees keys up to t + S - T: the last query sees all (default false). */
  readonly causal?: boolean
  /** Factor of q . k (default 1 / sqrt(D)). */
  readonly scale?: number
  /** `[left, right]`: the query at position p sees keys from p - left to p + right; -1: no limit. */
  readonly window?: Window
  /** Logits x become softcap tanh(x / softcap); 0: none. */
  readonly softcap?: number
  /** `[H]` or `[B, H]` f32: slope times distance is taken off each logit. */
  readonly alibiSlopes?: FloatList
  /** `[B | 1, H | 1, T | 1, S]`, f32 or the type of q, added to the logits; -Infinity hides. */
  readonly bias?: Tensor
  /** Key j of a KV head is visible to queries at positions births[j] <= p < deaths[j]. */
  readonly lifetimes?: Lifetimes
  /** `[B]`: keys of each sequence, S at most; the rest is never read, and the last query is at the last of them. */
  readonly kvLengths?: IntegerList
}

/** int32 `[B, K, S]`. Query t is at position t + S - T (with `kvLengths`: its length instead of S), key j at j. */
export interface Lifetimes {
  /** Absent: before all. */
  readonly births?: Tensor
  /** Absent: never. */
  readonly deaths?: Tensor
}

const keys = [
  ...['causal', 'scale', 'window', 'softcap', 'alibiSlopes', 'bias', 'lifetimes', 'kvLengths'],
  ...runKeys,
  ...sinkKeys,
]

/**
 * softmax(softcap(scale q . k) + bias - slope distance) v over the keys that a query sees, f32 inside. T and S may
 * differ, H is any multiple of K, E may differ from D.
 * @param q `[B, T, H, D]` float32, float16, or uint16 with `dtype: 'bf16'`
 * @param k `[B, S, K, D]` of the same type
 * @param v `[B, S, K, E]` of the same type
 * @returns `[B, T, H, E]` of the same type; with `returnLse` also the natural log of the sum of exponentials `[B, T, H]`
 * f32, sinks included. A query that sees nothing gives zeros and -Infinity.
 * @throws KvasirError `invalid-argument` before any work: shapes, types, head ratio, numbers that are not finite,
 * unknown options; `unsupported`: dropout, data on a device
 */
export async function attention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options?: AttentionOptions & { readonly returnLse?: false },
): Promise<Tensor>
export async function attention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: AttentionOptions & { readonly returnLse: true },
): Promise<AttentionState>
export async function attention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options?: AttentionOptions,
): Promise<Tensor | AttentionState>
export async function attention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: AttentionOptions = {},
): Promise<Tensor | AttentionState> {
  checkOptions('attention', options, keys)
  const problem = readProblem(
    { query: 'q', key: 'k', value: 'v' },
    { query: q, key: k, value: v },
    'token-major',
    options.dtype,
  )
  const { B, T, S, H, E, storage } = problem
  const form = checkForm(options, problem)
  const bias = options.bias === undefined ? () => undefined : readBias('bias', options.bias, problem, options.dtype)
  const lifetimes = readLifetimes(options.lifetimes, problem)
  const { kvLengths } = options
  const lengths = kvLengths === undefined ? undefined : integerList('kvLengths', kvLengths, B, { max: S })
  const kernels = kernelsFor(options)
  const results = allocateResults(storage, B * T, problem, options.returnLse)
  const calls = Array.from({ length: B }, (_, b) => {
    const numKeys = lengths?.[b] ?? S
    const segment = {
      ...tokenMajor(problem, problem.key, problem.value, b * S, S),
      ...{ lengths: new Int32Array(problem.K).fill(numKeys), mask: bias(b), ...lifetimes(b) },
    }
    const sequence = { b, firstRow: b * T, numTokens: T, firstPosition: numKeys - T, segment }
    return toCall(problem, form, problem.query, results, sequence)
  })
  await attendEach(kernels, calls)
  return finish(results, [B, T, H, E])
}

type LifetimesOf = (b: number) => { readonly births?: Int32Array; readonly deaths?: Int32Array }

function readLifetimes(lifetimes: unknown, { B, K, S }: Problem): LifetimesOf {
  if (lifetimes === undefined) return () => ({})
  if (typeof lifetimes !== 'object' || lifetimes === null) {
    throw invalidArgument('attention', `expected { births, deaths } for lifetimes, got ${describe(lifetimes)}`)
  }
  checkKeys('attention', 'lifetimes', lifetimes, ['births', 'deaths'])
  const read = (name: 'births' | 'deaths') => {
    const tensor = (lifetimes as Lifetimes)[name]
    if (tensor === undefined) return () => undefined
    const data = typedData(`lifetimes.${name}`, tensor, [B, K, S], 'int32', Int32Array)
    return (b: number) => data.subarray(b * K * S, (b + 1) * K * S)
  }
  const [births, deaths] = [read('births'), read('deaths')]
  return (b) => ({ births: births(b), deaths: deaths(b) })
}
