/** `flashAttention`: flash_attn_func of flash-attn 2. */
import type { Tensor } from 'onnxruntime-common'
import { type AttentionState, readProblem, tokenMajor } from './core.ts'
import { checkFlashOptions, type FlashOptions } from './flash-options.ts'
import { attendSequences } from './flash-sequences.ts'

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
  const { B, T, S, query } = problem
  const sequences = Array.from({ length: B }, (_, b) => {
    const keys = tokenMajor(problem, problem.key, problem.value, b * S, S)
    return { firstRow: b * T, numTokens: T, numKeys: S, keys }
  })
  return attendSequences(options, { ...problem, query, tokens: [B, T] }, sequences)
}
