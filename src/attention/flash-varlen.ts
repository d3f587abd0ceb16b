/** `flashAttentionVarlen`: flash_attn_varlen_func of flash-attn 2. Sequences of any lengths, end to end. */
import type { Tensor } from 'onnxruntime-common'
import { checkPaged, pagedSegment, readBlockTable } from './block-table.ts'
import { type AttentionState, checkHeads, checkSameStorage, tokenMajor } from './core.ts'
import { checkFlashOptions, type FlashOptions } from './flash-options.ts'
import { attendSequences } from './flash-sequences.ts'
import type { IntegerList } from './lists.ts'
import { lengthsOf, readOffsets, sequenceAt } from './offsets.ts'
import { floatData } from './tensors.ts'

export interface FlashVarlenOptions extends FlashOptions {
  /** `[batch + 1]`: sequence b has the query tokens cuSeqlensQ[b] to cuSeqlensQ[b + 1] - 1; from 0 to totalQ. */
  readonly cuSeqlensQ: IntegerList
  /** `[batch + 1]`: the same of keys, from 0 to totalK; with `blockTable` only the lengths count. */
  readonly cuSeqlensK: IntegerList
  /** Not needed; when given, no sequence may be longer. */
  readonly maxSeqlenQ?: number
  readonly maxSeqlenK?: number
  /** int32 `[batch, maxBlocks]`: k and v are pools of pages, and sequence b has these, in this order. */
  readonly blockTable?: Tensor
}

/**
 * flash_attn_varlen_func of flash-attn 2: sequences of any lengths end to end, or keys in pages.
 * @param q `[totalQ, heads, headDim]` float32, float16, or uint16 with `dtype: 'bf16'`
 * @param k `[totalK, headsK, headDim]` of the same type; with `blockTable` `[blocks, pageSize, headsK, headDim]`
 * @param v `[totalK, headsK, valueDim]` or `[blocks, pageSize, headsK, valueDim]`
 * @returns `[totalQ, heads, valueDim]`; with `returnLse` also `[totalQ, heads]` f32. Each sequence gets the bits that it
 * would get alone.
 * @throws KvasirError as `attention` does
 */
export async function flashAttentionVarlen(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: FlashVarlenOptions & { readonly returnLse?: false },
): Promise<Tensor>
export async function flashAttentionVarlen(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: FlashVarlenOptions & { readonly returnLse: true },
): Promise<AttentionState>
export async function flashAttentionVarlen(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: FlashVarlenOptions,
): Promise<Tensor | AttentionState>
export async function flashAttentionVarlen(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  options: FlashVarlenOptions,
): Promise<Tensor | AttentionState> {
  const more = ['cuSeqlensQ', 'cuSeqlensK', 'maxSeqlenQ', 'maxSeqlenK', 'blockTable']
  checkFlashOptions('flashAttentionVarlen', options, more)
  const isPaged = checkPaged(options.blockTable)
  const query = floatData('q', q, [null, null, null], options.dtype)
  const [total, H, D] = query.dims as [number, number, number]
  const key = floatData('k', k, isPaged ? [null, null, null, D] : [null, null, D], options.dtype)
  const value = floatData('v', v, [...key.dims.slice(0, -1), null], options.dtype)
  checkSameStorage('k', key, 'q', query)
  checkSameStorage('v', value, 'q', query)
  const sizes = { H, K: key.dims.at(-2) as number, D, E: value.dims.at(-1) as number }
  checkHeads(sizes)
  const { cuSeqlensQ, cuSeqlensK, maxSeqlenQ, maxSeqlenK, blockTable } = options
  const queries = readOffsets('cuSeqlensQ', cuSeqlensQ, null, total, ['maxSeqlenQ', maxSeqlenQ])
  const B = queries.length - 1
  const totalK = isPaged ? undefined : (key.dims[0] as number)
  const keys = readOffsets('cuSeqlensK', cuSeqlensK, B + 1, totalK, ['maxSeqlenK', maxSeqlenK])
  const table = blockTable && readBlockTable(blockTable, key.dims, lengthsOf(keys))
  const sequences = Array.from({ length: B }, (_, b) => {
    const [own, { first, count: numKeys }] = [sequenceAt(queries, b), sequenceAt(keys, b)]
    const rows = table
      ? pagedSegment(table, key.data, value.data, b)
      : tokenMajor(sizes, key.data, value.data, first, numKeys)
    return { firstRow: own.first, numTokens: own.count, numKeys, keys: rows }
  })
  return attendSequences(options, { ...sizes, storage: query.storage, query: query.data, tokens: [total] }, sequences)
}
