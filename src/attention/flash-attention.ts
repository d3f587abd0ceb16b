/** `flashAttention` and `flashAttentionQkvPacked`: flash_attn_func and flash_attn_qkvpacked_func of flash-attn 2. */
import type { Tensor } from 'onnxruntime-common'
import { kernelsFor } from './backends.ts'
import {
  type AttentionState,
  allocateResults,
  attendEach,
  checkHeads,
  finish,
  readProblem,
  toCall,
  tokenMajor,
} from './core.ts'
import { checkFlashForm, checkFlashOptions, type FlashOptions } from './flash-options.ts'
import { allocate, floatData } from './tensors.ts'

/**
 * flash_attn_func of flash-attn 2: attention of sequences of one length.
 * @param q `[batch, seqlenQ, heads, headDim]` float32, float16, or uint16 with `dtype: 'bf16'`
 * @param k `[batch, seqlenK, headsK, headDim]` of the same type; heads is a multiple of headsK
 * @param v `[batch, seqlenK, headsK, valueDim]` of the same type
 * @returns `[batch, seqlenQ, heads, valueDim]`; with `returnLse` also `[batch, seqlenQ, heads]` f32 (flash-attn has the
 * heads first; here they are where the output has them)
 * @throws KvasirError as `attention` does
 */
export async function flashAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options?: FlashOptions & { readonly returnLse?: false },
): Promise<Tensor>
export async function flashAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: FlashOptions & { readonly returnLse: true },
): Promise<AttentionState>
export async function flashAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options?: FlashOptions,
): Promise<Tensor | AttentionState>
export async function flashAttention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: FlashOptions = {},
): Promise<Tensor | AttentionState> {
  checkFlashOptions('flashAttention', options)
  const tensors = { query: q, key: k, value: v }
  const problem = readProblem({ query: 'q', key: 'k', value: 'v' }, tensors, 'token-major', options.dtype)
  const { B, T, S, H, K, E, storage } = problem
  const form = checkFlashForm(options, problem)
  const kernels = kernelsFor(options)
  const results = allocateResults(storage, B * T, problem, options.returnLse)
  const lengths = new Int32Array(K).fill(S)
  const calls = Array.from({ length: B }, (_, b) => {
    const segment = { ...tokenMajor(problem, problem.key, problem.value, b * S, S), lengths }
    return toCall(problem, form, problem.query, results, {
      ...{ b, firstRow: b * T, numTokens: T, firstPosition: S - T, segment },
    })
  })
  await attendEach(kernels, calls)
  return finish(results, [B, T, H, E])
}

/**
 * flash_attn_qkvpacked_func of flash-attn 2: queries, keys and values in one tensor.
 * @param qkv `[batch, seqlen, 3, heads, headDim]` float32, float16, or uint16 with `dtype: 'bf16'`
 * @returns `[batch, seqlen, heads, headDim]`; with `returnLse` also `[batch, seqlen, heads]` f32
 * @throws KvasirError as `attention` does
 */
export async function flashAttentionQkvPacked(
  qkv: Tensor,
  options?: FlashOptions & { readonly returnLse?: false },
): Promise<Tensor>
export async function flashAttentionQkvPacked(
  qkv: Tensor,
  options: FlashOptions & { readonly returnLse: true },
): Promise<AttentionState>
export async function flashAttentionQkvPacked(qkv: Tensor, options?: FlashOptions): Promise<Tensor | AttentionState>
export async function flashAttentionQkvPacked(
  qkv: Tensor,
  options: FlashOptions = {},
): Promise<Tensor | AttentionState> {
  checkFlashOptions('flashAttentionQkvPacked', options)
  const { data, storage, dims } = floatData('qkv', qkv, [null, null, 3, null, null], options.dtype)
  const [B, S, , H, D] = dims as [number, number, number, number, number]
  const sizes = { H, K: H, D, E: D }
  checkHeads(sizes)
  const form = checkFlashForm(options, { ...sizes, B })
  const kernels = kernelsFor(options)
  const results = allocateResults(storage, B * S, sizes, options.returnLse)
  const row = H * D
  const query = allocate(storage, B * S * row)
  for (let n = 0; n < B * S; n++) query.set(data.subarray(3 * n * row, (3 * n + 1) * row), n * row)
  // K and V stay where they lie: to the kernels they are pages of one token, every third row of the tensor.
  const pages = { pages: Int32Array.from({ length: S }, (_, j) => 3 * j), pageSize: 1 }
  const lengths = new Int32Array(H).fill(S)
  const calls = Array.from({ length: B }, (_, b) => {
    const [from, to] = [3 * b * S * row, 3 * (b + 1) * S * row]
    const keys = data.subarray(Math.min(from + row, to), to)
    const values = data.subarray(Math.min(from + 2 * row, to), to)
    const segment = { keys, values, layout: 'token-major', capacity: S, lengths, ...pages } as const
    return toCall(sizes, form, query, results, { b, firstRow: b * S, numTokens: S, firstPosition: 0, segment })
  })
  await attendEach(kernels, calls)
  return finish(results, [B, S, H, D])
}
