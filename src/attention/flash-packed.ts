/**
 * `flashAttentionQkvPacked` and `flashAttentionKvPacked`: flash_attn_qkvpacked_func and flash_attn_kvpacked_func of
 * flash-attn 2.
 */
import type { Tensor } from 'onnxruntime-common'
import { type AttentionState, checkHeads, checkLengths, checkSameStorage } from './core.ts'
import { checkFlashOptions, type FlashOptions } from './flash-options.ts'
import { attendSequences } from './flash-sequences.ts'
import { packedKeys, unpackQueries } from './packed.ts'
import { floatData } from './tensors.ts'

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
  checkLengths({ B, T: S, S })
  const query = unpackQueries({ data, storage }, H * D)
  const keysOf = packedKeys({ data, parts: 3, row: H * D }, S)
  const sequences = Array.from({ length: B }, (_, b) => {
    return { firstRow: b * S, numTokens: S, numKeys: S, keys: keysOf(b * S, S) }
  })
  return attendSequences(options, { ...sizes, storage, query, tokens: [B, S] }, sequences)
}

/**
 * flash_attn_kvpacked_func of flash-attn 2: keys and values in one tensor, read where they lie.
 * @param q `[batch, seqlenQ, heads, headDim]` float32, float16, or uint16 with `dtype: 'bf16'`
 * @param kv `[batch, seqlenK, 2, headsK, headDim]` of the same type; heads is a multiple of headsK
 * @returns `[batch, seqlenQ, heads, headDim]`; with `returnLse` also `[batch, seqlenQ, heads]` f32
 * @throws KvasirError as `attention` does
 */
export async function flashAttentionKvPacked(
  q: Tensor,
  kv: Tensor,
  options?: FlashOptions & { readonly returnLse?: false },
): Promise<Tensor>
export async function flashAttentionKvPacked(
  q: Tensor,
  kv: Tensor,
  options: FlashOptions & { readonly returnLse: true },
): Promise<AttentionState>
export async function flashAttentionKvPacked(
  q: Tensor,
  kv: Tensor,
  options?: FlashOptions,
): Promise<Tensor | AttentionState>
export async function flashAttentionKvPacked(
  q: Tensor,
  kv: Tensor,
  options: FlashOptions = {},
): Promise<Tensor | AttentionState> {
  checkFlashOptions('flashAttentionKvPacked', options)
  const query = floatData('q', q, [null, null, null, null], options.dtype)
  const [B, T, H, D] = query.dims as [number, number, number, number]
  const packed = floatData('kv', kv, [B, null, 2, null, D], options.dtype)
  const [, S, , K] = packed.dims as [number, number, number, number]
  checkSameStorage('kv', packed, 'q', query)
  const sizes = { H, K, D, E: D }
  checkHeads(sizes)
  checkLengths({ B, T, S })
  const keysOf = packedKeys({ data: packed.data, parts: 2, row: K * D }, S)
  const sequences = Array.from({ length: B }, (_, b) => {
    return { firstRow: b * T, numTokens: T, numKeys: S, keys: keysOf(b * S, S) }
  })
  const queries = { ...sizes, storage: query.storage, query: query.data, tokens: [B, T] }
  return attendSequences(options, queries, sequences)
}
