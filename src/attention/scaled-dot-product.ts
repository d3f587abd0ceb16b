/**
 * `scaledDotProductAttention`: torch.nn.functional.scaled_dot_product_attention. Its causal mask begins at the top left:
 * query t sees keys 0 to t, whatever T and S are. (flash-attn's ends at the bottom right; with T = S they are the same.)
 */
import type { Tensor } from 'onnxruntime-common'
import { describe } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import { kernelsFor } from './backends.ts'
import { type AttentionState, allocateResults, attendEach, finish, type Problem, readProblem, toCall } from './core.ts'
import { type MaskOf, readAllowed, readBias } from './masks.ts'
import { checkBoolean, checkForm, checkOptions, type RunOptions, runKeys } from './options.ts'
import { isTensor, swapMiddle } from './tensors.ts'

export interface ScaledDotProductOptions extends RunOptions {
  /**
   * Broadcast to `[B, H, T, S]`, S always written out: `bool` (true: visible), or f32 or the type of the query, added to
   * the logits.
   */
  readonly attnMask?: Tensor
  /** Accepted as 0, since nothing here trains. */
  readonly dropoutP?: number
  /** Query t sees keys 0 to t (default false); not together with `attnMask`. */
  readonly isCausal?: boolean
  /** Factor of q . k (default 1 / sqrt(D)). */
  readonly scale?: number
  /** Let H be a multiple of the heads of key and value (default false: they must be equal). */
  readonly enableGqa?: boolean
}

/**
 * scaled_dot_product_attention of PyTorch.
 * @param query `[B, H, T, D]` float32, float16, or uint16 with `dtype: 'bf16'`
 * @param key `[B, K, S, D]` of the same type, K = H unless `enableGqa`
 * @param value `[B, K, S, E]` of the same type
 * @returns `[B, H, T, E]`; with `returnLse` also `[B, H, T]` f32. A query that sees nothing gives zeros.
 * @throws KvasirError as `attention` does
 */
export async function scaledDotProductAttention(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  options?: ScaledDotProductOptions & { readonly returnLse?: false },
): Promise<Tensor>
export async function scaledDotProductAttention(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  options: ScaledDotProductOptions & { readonly returnLse: true },
): Promise<AttentionState>
export async function scaledDotProductAttention(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  options?: ScaledDotProductOptions,
): Promise<Tensor | AttentionState>
export async function scaledDotProductAttention(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  options: ScaledDotProductOptions = {},
): Promise<Tensor | AttentionState> {
  const known = ['attnMask', 'dropoutP', 'isCausal', 'scale', 'enableGqa', ...runKeys]
  checkOptions('scaledDotProductAttention', options, known)
  const { isCausal = false, enableGqa = false, attnMask, scale } = options
  checkBoolean('isCausal', isCausal)
  checkBoolean('enableGqa', enableGqa)
  const names = { query: 'query', key: 'key', value: 'value' }
  const problem = readProblem(names, { query, key, value }, 'head-major', options.dtype)
  const { B, T, S, H, K, D, E, storage } = problem
  if (H !== K && !enableGqa) {
    throw invalidArgument('attention', `expected ${H} heads in key and value, or enableGqa: true, got ${K}`)
  }
  if (attnMask !== undefined && isCausal) throw invalidArgument('attention', 'expected attnMask or isCausal, got both')
  const form = checkForm({ causal: isCausal, scale }, problem)
  const mask = readMask(attnMask, problem, options)
  const kernels = kernelsFor(options)
  const results = allocateResults(storage, B * T, problem, options.returnLse)
  const queries = swapMiddle(problem.query, [B, H, T, D])
  const lengths = new Int32Array(K).fill(S)
  const calls = Array.from({ length: B }, (_, b) => {
    const keys = problem.key.subarray(b * K * S * D, (b + 1) * K * S * D)
    const values = problem.value.subarray(b * K * S * E, (b + 1) * K * S * E)
    const segment = { keys, values, layout: 'head-major', capacity: S, lengths, mask: mask(b) } as const
    return toCall(problem, form, queries, results, { b, firstRow: b * T, numTokens: T, firstPosition: 0, segment })
  })
  await attendEach(kernels, calls)
  const headMajor = {
    storage,
    output: swapMiddle(results.output, [B, T, H, E]),
    lse: results.lse && swapMiddle(results.lse, [B, T, H, 1]),
  }
  return finish(headMajor, [B, H, T, E])
}

function readMask(mask: Tensor | undefined, sizes: Problem, { dtype }: ScaledDotProductOptions): MaskOf {
  if (mask === undefined) return () => undefined
  if (isTensor(mask))
    return mask.type === 'bool' ? readAllowed('attnMask', mask, sizes) : readBias('attnMask', mask, sizes, dtype)
  throw invalidArgument('attention', `expected a Tensor for attnMask, got ${describe(mask)}`)
}
