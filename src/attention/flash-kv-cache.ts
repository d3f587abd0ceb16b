/**
 * `flashAttentionWithKVCache`: flash_attn_with_kvcache of flash-attn 2. Stores new keys and values in the cache, then
 * attends over all of it. All is checked before the first byte is written.
 */
import type { Tensor } from 'onnxruntime-common'
import { checkInteger } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import { kernelsFor } from './backends.ts'
import { checkPaged } from './block-table.ts'
import { append, checkTargets, readNewTokens } from './cache-append.ts'
import { type Places, readPlaces } from './cache-places.ts'
import {
  type AttentionState,
  allocateResults,
  attendEach,
  checkHeads,
  checkLengths,
  checkSameStorage,
  finish,
  type Problem,
  toCall,
} from './core.ts'
import { checkFlashForm, checkFlashOptions, type FlashOptions } from './flash-options.ts'
import type { IntegerList } from './lists.ts'
import { checkBoolean } from './options.ts'
import { checkApart } from './overlap.ts'
import { type Rotary, readRotary, rotationAt } from './rotary.ts'
import { floatData } from './tensors.ts'

export interface FlashKVCacheOptions extends FlashOptions {
  /** `[batch, seqlenNew, headsK, headDim]`: stored from `cacheSeqlens` on. With `v`, and needs `cacheSeqlens`. */
  readonly k?: Tensor
  /** `[batch, seqlenNew, headsK, valueDim]` */
  readonly v?: Tensor
  /** `[seqlenRotary, rotaryDim / 2]`, f32 or the type of q: q and k are rotated, k before it is stored. Needs `k`. */
  readonly rotaryCos?: Tensor
  readonly rotarySin?: Tensor
  /** Pairs (0, 1), (2, 3), ... as flash-attn's default has it (default true); false: halves. */
  readonly rotaryInterleaved?: boolean
  /** Tokens in the cache before the call: one number for all, or `[batch]` (default: the cache is full). */
  readonly cacheSeqlens?: number | IntegerList
  /** `[batch]`: which sequence of the cache each query belongs to (default: 0, 1, ...). Not with `blockTable`. */
  readonly cacheBatchIdx?: IntegerList
  /** `[batch]`: where the tokens of each sequence begin in the cache (default 0). Not with `blockTable`. */
  readonly cacheLeftpad?: IntegerList
  /** int32 `[batch, maxBlocks]`: the caches are pools of pages, and sequence b has these, in this order. */
  readonly blockTable?: Tensor
  /** How the keys are split is the kernels' choice and never changes a result; accepted for what is written for others. */
  readonly numSplits?: number
}

const more = [
  ...['k', 'v', 'rotaryCos', 'rotarySin', 'rotaryInterleaved', 'cacheSeqlens', 'cacheBatchIdx', 'cacheLeftpad'],
  ...['blockTable', 'numSplits'],
]

/**
 * flash_attn_with_kvcache of flash-attn 2: stores new keys and values in a cache and attends to it.
 * @param q `[batch, seqlenQ, heads, headDim]` float32, float16, or uint16 with `dtype: 'bf16'`
 * @param kCache `[batchCache, seqlenCache, headsK, headDim]` of the same type, or with `blockTable` `[blocks, pageSize,
 * headsK, headDim]`, any page size; changed in place when `k` is given, and not to be touched until the call is done
 * @param vCache the same with valueDim
 * @returns `[batch, seqlenQ, heads, valueDim]`; with `returnLse` also `[batch, seqlenQ, heads]` f32
 * @throws KvasirError as `attention` does; nothing is stored then
 */
export async function flashAttentionWithKVCache(
  q: Tensor,
  kCache: Tensor,
  vCache: Tensor,
  options?: FlashKVCacheOptions & { readonly returnLse?: false },
): Promise<Tensor>
export async function flashAttentionWithKVCache(
  q: Tensor,
  kCache: Tensor,
  vCache: Tensor,
  options: FlashKVCacheOptions & { readonly returnLse: true },
): Promise<AttentionState>
export async function flashAttentionWithKVCache(
  q: Tensor,
  kCache: Tensor,
  vCache: Tensor,
  options?: FlashKVCacheOptions,
): Promise<Tensor | AttentionState>
export async function flashAttentionWithKVCache(
  q: Tensor,
  kCache: Tensor,
  vCache: Tensor,
  options: FlashKVCacheOptions = {},
): Promise<Tensor | AttentionState> {
  checkFlashOptions('flashAttentionWithKVCache', options, more)
  checkCombinations(options)
  const { problem, pool } = readCaches(q, kCache, vCache, options)
  const { B, T, H, E, storage } = problem
  const form = checkFlashForm(options, problem)
  const fresh = readNewTokens(options, problem)
  const place = readPlaces(options, problem, pool, fresh?.count)
  const isLocal = form.left !== undefined || form.right !== undefined
  const rotary = readRotary(options, problem.D, storage)
  if (rotary) checkRotaryLength(rotary, place, B, Math.max(fresh?.count ?? 0, isLocal ? T : Math.min(T, 1)))
  const kernels = kernelsFor(options)
  const results = allocateResults(storage, B * T, problem, options.returnLse)
  if (fresh) {
    checkApart({ kCache: problem.key, vCache: problem.value }, { q, ...options })
    checkTargets(problem, fresh, place)
    append(kernels, problem, fresh, place, rotary)
  }
  const calls = Array.from({ length: B }, (_, b) => {
    const { before, pad, total } = place.of(b)
    const segment = { ...place.segment(b), lengths: new Int32Array(problem.K).fill(total - pad) }
    // Without a causal mask or a window all queries stand at the first new position, as flash-attn has it.
    const rotation = rotary && rotationAt(rotary, before, T, isLocal ? 1 : 0)
    const firstPosition = total - pad - T
    return toCall(problem, form, problem.query, results, {
      ...{ b, firstRow: b * T, numTokens: T, firstPosition, segment, rotation },
    })
  })
  await attendEach(kernels, calls)
  return finish(results, [B, T, H, E])
}

function checkCombinations(options: FlashKVCacheOptions): void {
  const { k, v, rotaryCos, rotarySin, blockTable, cacheSeqlens, rotaryInterleaved = true, numSplits = 0 } = options
  const refuse = (message: string): never => {
    throw invalidArgument('attention', message)
  }
  if ((k === undefined) !== (v === undefined)) refuse(`expected k and v together, got ${k ? 'k' : 'v'} alone`)
  if ((rotaryCos === undefined) !== (rotarySin === undefined))
    refuse('expected rotaryCos and rotarySin, got one of them')
  if (rotaryCos && !k) refuse('expected k and v with rotaryCos and rotarySin, got none: what is cached is rotated')
  if (k && cacheSeqlens === undefined) refuse('expected cacheSeqlens with k and v, got none')
  const isPaged = checkPaged(blockTable)
  if (isPaged && options.cacheBatchIdx !== undefined) refuse('expected blockTable or cacheBatchIdx, got both')
  if (isPaged && options.cacheLeftpad !== undefined) refuse('expected blockTable or cacheLeftpad, got both')
  checkInteger('attention', 'numSplits', numSplits, 0)
  checkBoolean('rotaryInterleaved', rotaryInterleaved)
}

/** S: rows of a sequence of the cache, or of a page; `pool`: how many of those there are. */
function readCaches(
  q: Tensor,
  kCache: Tensor,
  vCache: Tensor,
  { dtype }: FlashKVCacheOptions,
): { problem: Problem; pool: number } {
  const query = floatData('q', q, [null, null, null, null], dtype)
  const [B, T, H, D] = query.dims as [number, number, number, number]
  const key = floatData('kCache', kCache, [null, null, null, D], dtype)
  const [pool, S, K] = key.dims as [number, number, number]
  const value = floatData('vCache', vCache, [pool, S, K, null], dtype)
  checkSameStorage('kCache', key, 'q', query)
  checkSameStorage('vCache', value, 'q', query)
  const sizes = { B, T, S, H, K, D, E: value.dims[3] as number }
  checkHeads(sizes)
  checkLengths(sizes)
  const data = { storage: query.storage, query: query.data, key: key.data, value: value.data }
  return { problem: { ...sizes, ...data }, pool }
}

function checkRotaryLength({ length }: Rotary, { of }: Places, B: number, tokens: number): void {
  for (let b = 0; b < B; b++) {
    const needed = of(b).before + tokens
    if (needed <= length) continue
    throw invalidArgument('attention', `expected at least ${needed} rows in rotaryCos and rotarySin, got ${length}`)
  }
}
