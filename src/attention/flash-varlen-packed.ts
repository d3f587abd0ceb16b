/**
 * `flashAttentionVarlenQkvPacked` and `flashAttentionVarlenKvPacked`: flash_attn_varlen_qkvpacked_func and
 * flash_attn_varlen_kvpacked_func of flash-attn 2. Sequences of any lengths, end to end, in packed tensors.
 */
import type { Tensor } from 'onnxruntime-common'
import { type AttentionState, checkHeads, checkSameStorage } from './core.ts'
import { checkFlashOptions, type FlashOptions } from './flash-options.ts'
import { attendSequences } from './flash-sequences.ts'
import type { FlashVarlenOptions } from './flash-varlen.ts'
import type { IntegerList } from './lists.ts'
import { longestOf, readOffsets, sequenceAt } from './offsets.ts'
import { packedKeys, unpackQueries } from './packed.ts'
import { floatData } from './tensors.ts'

export interface FlashVarlenQkvOptions extends FlashOptions {
  /** `[batch + 1]`: sequence b has the tokens cuSeqlens[b] to cuSeqlens[b + 1] - 1; from 0 to total. */
  readonly cuSeqlens: IntegerList
  /** Not needed; when given, no sequence may be longer. */
  readonly maxSeqlen?: number
}

/** Those of `flashAttentionVarlen` but for pages, which keys and values in one tensor do not have. */
export type FlashVarlenKvOptions = Omit<FlashVarlenOptions, 'blockTable'>

/**
 * flash_attn_varlen_qkvpacked_func of flash-attn 2: queries, keys and values of sequences of any lengths in one tensor.
 * @param qkv `[total, 3, heads, headDim]` float32, float16, or uint16 with `dtype: 'bf16'`
 * @returns `[total, heads, headDim]`; with `returnLse` also `[total, heads]` f32
 * @throws KvasirError as `attention` does
 */
export async function flashAttentionVarlenQkvPacked(
  qkv: Tensor,
  options: FlashVarlenQkvOptions & { readonly returnLse?: false },
): Promise<Tensor>
export async function flashAttentionVarlenQkvPacked(
  qkv: Tensor,
  options: FlashVarlenQkvOptions & { readonly returnLse: true },
): Promise<AttentionState>
export async function flashAttentionVarlenQkvPacked(
  qkv: Tensor,
  options: FlashVarlenQkvOptions,
): Promise<Tensor | AttentionState>
export async function flashAttentionVarlenQkvPacked(
  qkv: Tensor,
  options: FlashVarlenQkvOptions,
): Promise<Tensor | AttentionState> {
  checkFlashOptions('flashAttentionVarlenQkvPacked', options, ['cuSeqlens', 'maxSeqlen'])
  const { data, storage, dims } = floatData('qkv', qkv, [null, 3, null, null], options.dtype)
  const [total, , H, D] = dims as [number, number, number, number]
  const sizes = { H, K: H, D, E: D }
  checkHeads(sizes)
  const offsets = readOffsets('cuSeqlens', options.cuSeqlens, null, total, ['maxSeqlen', options.maxSeqlen])
  const query = unpackQueries({ data, storage }, H * D)
  const keysOf = packedKeys({ data, parts: 3, row: H * D }, longestOf(offsets))
  const sequences = Array.from({ length: offsets.length - 1 }, (_, b) => {
    const { first, count } = sequenceAt(offsets, b)
    return { firstRow: first, numTokens: count, numKeys: count, keys: keysOf(first, count) }
  })
  return attendSequences(options, { ...sizes, storage, query, tokens: [total] }, sequences)
}

/**
 * flash_attn_varlen_kvpacked_func of flash-attn 2: sequences of any lengths, keys and values in one tensor, read where
 * they lie.
 * @param q `[totalQ, heads, headDim]` float32, float16, or uint16 with `dtype: 'bf16'`
 * @param kv `[totalK, 2, headsK, headDim]` of the same type; heads is a multiple of headsK
 * @returns `[totalQ, heads, headDim]`; with `returnLse` also `[totalQ, heads]` f32
 * @throws KvasirError as `attention` does
 */
export async function flashAttentionVarlenKvPacked(
  q: Tensor,
  kv: Tensor,
  options: FlashVarlenKvOptions & { readonly returnLse?: false },
): Promise<Tensor>
export async function flashAttentionVarlenKvPacked(
  q: Tensor,
  kv: Tensor,
  options: FlashVarlenKvOptions & { readonly returnLse: true },
): Promise<AttentionState>
export async function flashAttentionVarlenKvPacked(
  q: Tensor,
  kv: Tensor,
  options: FlashVarlenKvOptions,
): Promise<Tensor | AttentionState>
export async function flashAttentionVarlenKvPacked(
  q: Tensor,
  kv: Tensor,
  options: FlashVarlenKvOptions,
): Promise<Tensor | AttentionState> {
  const more = ['cuSeqlensQ', 'cuSeqlensK', 'maxSeqlenQ', 'maxSeqlenK']
  checkFlashOptions('flashAttentionVarlenKvPacked', options, more)
  const query = floatData('q', q, [null, null, null], options.dtype)
  const [total, H, D] = query.dims as [number, number, number]
  const packed = floatData('kv', kv, [null, 2, null, D], options.dtype)
  const [totalK, , K] = packed.dims as [number, number, number]
  checkSameStorage('kv', packed, 'q', query)
  const sizes = { H, K, D, E: D }
  checkHeads(sizes)
  const { cuSeqlensQ, cuSeqlensK, maxSeqlenQ, maxSeqlenK } = options
  const queries = readOffsets('cuSeqlensQ', cuSeqlensQ, null, total, ['maxSeqlenQ', maxSeqlenQ])
  const keys = readOffsets('cuSeqlensK', cuSeqlensK, queries.length, totalK, ['maxSeqlenK', maxSeqlenK])
  const keysOf = packedKeys({ data: packed.data, parts: 2, row: K * D }, longestOf(keys))
  const sequences = Array.from({ length: queries.length - 1 }, (_, b) => {
    const [own, { first, count: numKeys }] = [sequenceAt(queries, b), sequenceAt(keys, b)]
    return { firstRow: own.first, numTokens: own.count, numKeys, keys: keysOf(first, numKeys) }
  })
  const all = { ...sizes, storage: query.storage, query: query.data, tokens: [total] }
  return attendSequences(options, all, sequences)
}
