/** Caches in pages: a pool `[blocks, pageSize, K, D]` and, for each sequence, the list of its pages. */
import type { Tensor } from 'onnxruntime-common'
import type { FloatArray, KeyValueSegment } from '../kernels/index.ts'
import { describe } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import { isTensor, typedData } from './tensors.ts'

export interface BlockTable {
  /** `[B, maxBlocks]` */
  readonly pages: Int32Array
  readonly maxBlocks: number
  readonly pageSize: number
}

/**
 * Whether keys lie in pages.
 * @throws KvasirError for a table that is no tensor
 */
export function checkPaged(blockTable: unknown): boolean {
  if (blockTable === undefined || isTensor(blockTable)) return blockTable !== undefined
  throw invalidArgument('attention', `expected a Tensor for blockTable, got ${describe(blockTable)}`)
}

/**
 * @param dims of the pool
 * @param lengths `[B]` tokens of each sequence; entries for pages that hold none of them may be anything
 * @throws KvasirError for pages outside the pool and for tables that are too short
 */
export function readBlockTable(tensor: Tensor, dims: readonly number[], lengths: Int32Array): BlockTable {
  const pages = typedData('blockTable', tensor, [lengths.length, null], 'int32', Int32Array)
  const maxBlocks = tensor.dims[1] as number
  const [numBlocks, pageSize] = dims as [number, number]
  for (const [b, length] of lengths.entries()) {
    if (length > maxBlocks * pageSize) {
      const came = `${maxBlocks} pages of ${pageSize} for the ${length} tokens of sequence ${b}`
      throw invalidArgument('attention', `expected enough pages in blockTable, got ${came}`)
    }
    for (let i = 0; i * pageSize < length; i++) {
      const page = pages[b * maxBlocks + i] as number
      if (page >= 0 && page < numBlocks) continue
      throw invalidArgument('attention', `expected pages in 0..${numBlocks - 1} in blockTable, got ${page}`)
    }
  }
  return { pages, maxBlocks, pageSize }
}

/** The rows of sequence b. */
export function pagedSegment(
  { pages, maxBlocks, pageSize }: BlockTable,
  keys: FloatArray,
  values: FloatArray,
  b: number,
): Pick<KeyValueSegment, 'keys' | 'values' | 'layout' | 'capacity' | 'pages' | 'pageSize'> {
  const own = pages.subarray(b * maxBlocks, (b + 1) * maxBlocks)
  return { keys, values, layout: 'token-major', capacity: maxBlocks * pageSize, pages: own, pageSize }
}

/** The row of the pool, in tokens, where token j of sequence b lies. */
export function rowOf({ pages, maxBlocks, pageSize }: BlockTable, b: number, j: number): number {
  return (pages[b * maxBlocks + Math.floor(j / pageSize)] as number) * pageSize + (j % pageSize)
}
