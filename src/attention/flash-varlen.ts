/** `flashAttentionVarlen`: flash_attn_varlen_func of flash-attn 2. Sequences of any lengths, end to end. */
import type { Tensor } from 'onnxruntime-common'
import { checkInteger } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import { kernelsFor } from './backends.ts'
import { type BlockTable, pagedSegment, readBlockTable } from './block-table.ts'
import {
  type AttentionState,
  allocateResults,
  attendEach,
  checkHeads,
  checkSameStorage,
  finish,
  toCall,
  tokenMajor,
} from './core.ts'
import { checkFlashForm, checkFlashOptions, type FlashOptions } from './flash-options.ts'
import { type IntegerList, integerList } from './lists.ts'
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
  const isPaged = options.blockTable !== undefined
  const query = floatData('q', q, [null, null, null], options.dtype)
  const [total, H, D] = query.dims as [number, number, number]
  const key = floatData('k', k, isPaged ? [null, null, null, D] : [null, null, D], options.dtype)
  const value = floatData('v', v, [...key.dims.slice(0, -1), null], options.dtype)
  checkSameStorage('k', key, 'q', query)
  checkSameStorage('v', value, 'q', query)
  const sizes = { H, K: key.dims.at(-2) as number, D, E: value.dims.at(-1) as number }
  checkHeads(sizes)
  const queries = readOffsets('cuSeqlensQ', options.cuSeqlensQ, null, total)
  const B = queries.length - 1
  const keys = readOffsets('cuSeqlensK', options.cuSeqlensK, B + 1, isPaged ? undefined : (key.dims[0] as number))
  checkLongest('maxSeqlenQ', options.maxSeqlenQ, queries)
  checkLongest('maxSeqlenK', options.maxSeqlenK, keys)
  const form = checkFlashForm(options, { ...sizes, B })
  const table = options.blockTable && readBlockTable(options.blockTable, key.dims, lengthsOf(keys))
  const kernels = kernelsFor(options)
  const results = allocateResults(query.storage, total, sizes, options.returnLse)
  const calls = Array.from({ length: B }, (_, b) => {
    const [firstRow, first] = [queries[b] as number, keys[b] as number]
    const numTokens = (queries[b + 1] as number) - firstRow
    const numKeys = (keys[b + 1] as number) - first
    const rows = table
      ? pagedSegment(table as BlockTable, key.data, value.data, b)
      : tokenMajor(sizes, key.data, value.data, first, numKeys)
    const segment = { ...rows, lengths: new Int32Array(sizes.K).fill(numKeys) }
    const firstPosition = numKeys - numTokens
    return toCall(sizes, form, query.data, results, { b, firstRow, numTokens, firstPosition, segment })
  })
  await attendEach(kernels, calls)
  return finish(results, [total, H, sizes.E])
}

/** @param total what the last must be; undefined: anything */
function readOffsets(name: string, list: unknown, length: number | null, total: number | undefined): Int32Array {
  const offsets = integerList(name, list, length, { max: total ?? 2 ** 31 - 2 })
  if (offsets.length === 0 || offsets[0] !== 0) {
    throw invalidArgument('attention', `expected 0 at the start of ${name}, got ${offsets[0] ?? 'nothing'}`)
  }
  const bad = offsets.findIndex((offset, i) => i > 0 && offset < (offsets[i - 1] as number))
  if (bad > 0) {
    const [before, offset] = offsets.subarray(bad - 1)
    throw invalidArgument('attention', `expected ${name} to grow, got ${offset} after ${before}`)
  }
  if (total !== undefined && offsets.at(-1) !== total) {
    throw invalidArgument(
      'attention',
      `expected ${name} to end at ${total}, the tokens that came, got ${offsets.at(-1)}`,
    )
  }
  return offsets
}

function lengthsOf(offsets: Int32Array): Int32Array {
  return offsets.subarray(1).map((offset, i) => offset - (offsets[i] as number))
}

function checkLongest(name: string, longest: unknown, offsets: Int32Array): void {
  if (longest === undefined) return
  checkInteger('attention', name, longest, 0)
  const came = lengthsOf(offsets).reduce((a, b) => Math.max(a, b), 0)
  if (came > longest)
    throw invalidArgument('attention', `expected sequences of at most ${name} = ${longest}, got ${came}`)
}
