/** Where the tokens of each sequence of `flashAttentionWithKVCache` lie: in a row, or in pages. */
import type { Tensor } from 'onnxruntime-common'
import type { KeyValueSegment } from '../kernels/index.ts'
import { checkInteger } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import { type BlockTable, pagedSegment, readBlockTable, rowOf } from './block-table.ts'
import { type Problem, tokenMajor } from './core.ts'
import { type IntegerList, integerList } from './lists.ts'

/** Where the tokens of each sequence lie. */
export interface Places {
  /** Tokens in the cache before the call and after it, padding included, and the padding. */
  readonly of: (b: number) => { readonly before: number; readonly pad: number; readonly total: number }
  /** The row, in tokens, of the cache tensors where token j of sequence b lies. */
  readonly row: (b: number, j: number) => number
  readonly segment: (b: number) => Omit<KeyValueSegment, 'lengths'>
  readonly table?: BlockTable
}

interface PlaceOptions {
  readonly cacheSeqlens?: number | IntegerList
  readonly cacheBatchIdx?: IntegerList
  readonly cacheLeftpad?: IntegerList
  readonly blockTable?: Tensor
}

/**
 * @param pool how many sequences, or pages, the cache tensors have
 * @param count new tokens of each sequence; undefined: none are stored
 * @throws KvasirError where a sequence does not fit
 */
export function readPlaces(options: PlaceOptions, problem: Problem, pool: number, count: number | undefined): Places {
  const { B, S } = problem
  const { cacheSeqlens, cacheBatchIdx, cacheLeftpad, blockTable } = options
  const added = count ?? 0
  const capacity = blockTable ? S * (blockTable.dims?.[1] ?? 0) : S
  checkInteger('attention', 'the tokens that a cache has room for', capacity, 0, 2 ** 31 - 2)
  const given = typeof cacheSeqlens === 'number' ? Array.from({ length: B }, () => cacheSeqlens) : cacheSeqlens
  const before =
    given === undefined ? new Int32Array(B).fill(capacity) : integerList('cacheSeqlens', given, B, { max: capacity })
  const full = before.find((length) => length + added > capacity)
  if (full !== undefined) {
    const came = `${full} cached and ${added} new tokens for ${capacity} rows`
    throw invalidArgument('attention', `expected a cache with room for all tokens, got ${came}`)
  }
  const pads = cacheLeftpad === undefined ? new Int32Array(B) : integerList('cacheLeftpad', cacheLeftpad, B, { max: S })
  const late = pads.findIndex((pad, b) => pad > (before[b] as number))
  if (late >= 0) {
    throw invalidArgument('attention', `expected cacheLeftpad[${late}] of at most ${before[late]}, got ${pads[late]}`)
  }
  const of = (b: number) => ({
    before: before[b] as number,
    pad: pads[b] as number,
    total: (before[b] as number) + added,
  })
  if (blockTable) {
    const table = readBlockTable(
      blockTable,
      [pool, S],
      before.map((length) => length + added),
    )
    const segment = (b: number) => pagedSegment(table, problem.key, problem.value, b)
    return { of, row: (b, j) => rowOf(table, b, j), segment, table }
  }
  const sequences = readSequences(cacheBatchIdx, B, pool, count !== undefined)
  const row = (b: number, j: number) => (sequences[b] as number) * S + j
  const segment = (b: number) => {
    const pad = pads[b] as number
    return tokenMajor(problem, problem.key, problem.value, row(b, pad), S - pad)
  }
  return { of, row, segment }
}

function readSequences(cacheBatchIdx: unknown, B: number, pool: number, stores: boolean): Int32Array {
  if (cacheBatchIdx === undefined) {
    if (B <= pool) return Int32Array.from({ length: B }, (_, b) => b)
    throw invalidArgument('attention', `expected a cache of at least ${B} sequences, as q has, got ${pool}`)
  }
  const sequences = integerList('cacheBatchIdx', cacheBatchIdx, B, { max: pool - 1 })
  if (!stores || new Set(sequences).size === B) return sequences
  throw invalidArgument('attention', 'expected distinct cacheBatchIdx when tokens are stored, got one twice')
}
