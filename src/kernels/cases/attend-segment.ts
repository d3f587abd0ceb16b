/** Segments of attention cases, in every form; storage that no query may look at holds NaN. */
import {
  type KeyValueSegment,
  type LogitMask,
  NEVER,
  type RowLayout,
  type StorageArray,
  type StorageType,
} from '../contract.ts'
import { allocateRows, rowBytes, writeRow } from '../storage.ts'
import type { AttendShape } from './attend-inputs.ts'
import { normal } from './random.ts'

/** Position of the first query: segments before it are the past. */
export const firstQuery = 1000

export function createSegment(
  shape: AttendShape,
  rows: number,
  { isLast, position, storage = 'f32' }: { isLast: boolean; position: number; storage?: StorageType },
  random: () => number,
): KeyValueSegment {
  const { numKvHeads: K, numTokens, headDim, valueDim = headDim, visibility = 'all', bias = 'none' } = shape
  const { gathers, layout = 'head-major', positions, pageSize } = shape
  const { keyStorage = storage, valueStorage = storage } = shape
  const capacity = rows + 5
  const lengths = Int32Array.from({ length: K }, (_, k) => Math.max(0, rows - (k % 3)))
  const births = new Int32Array(K * capacity).fill(-NEVER)
  const deaths = new Int32Array(K * capacity).fill(NEVER)
  const biases = normal(random, K * capacity)
  for (let k = 0; k < K; k++) {
    for (let j = 0; j < capacity; j++) {
      const at = k * capacity + j
      if (isLast && visibility !== 'all') births[at] = firstQuery + j
      if (visibility === 'window') deaths[at] = (isLast ? firstQuery + j : firstQuery + j - rows) + 48
      if (visibility === 'random') deaths[at] = firstQuery + Math.floor(random() * (numTokens + 1) * 1.2)
      if (bias === 'all-hidden' || (bias === 'some-hidden' && random() < 0.3)) biases[at] = Number.NEGATIVE_INFINITY
    }
  }
  const tables = pageSize ? createPages(layout, pageSize, K, capacity, random) : undefined
  const segment = {
    ...{ capacity, lengths, layout, keyStorage, valueStorage },
    bias: bias === 'none' ? undefined : biases,
    births: visibility === 'all' ? undefined : births,
    deaths: visibility === 'all' || visibility === 'causal' ? undefined : deaths,
    rows: gathers ? Int32Array.from({ length: K * capacity }, (_, i) => capacity - 1 - (i % capacity)) : undefined,
    ...tables?.pages,
    firstPosition: positions === 'consecutive' ? position : undefined,
    positions:
      positions === 'listed'
        ? Int32Array.from({ length: K * capacity }, (_, i) => position + (((i % capacity) * 7) % capacity))
        : undefined,
    mask: shape.mask && createMask(shape, capacity, random),
  }
  const storedRows = tables ? tables.numRows : layout === 'shared' ? capacity : K * capacity
  const used = usedRows(shape, segment, storedRows)
  const store = (dim: number, type: StorageType) => storeRows(normal(random, storedRows * dim), dim, type, used)
  return { ...segment, keys: store(headDim, keyStorage), values: store(valueDim, valueStorage) }
}

/** Rows that are not used are NaN: bytes of 0x7f or 0xff (in turns) with a scale of NaN. */
function storeRows(values: Float32Array, dim: number, storage: StorageType, used: ReadonlySet<number>): StorageArray {
  const numRows = values.length / dim
  const array = allocateRows(numRows, dim, storage)
  for (let row = 0; row < numRows; row++) {
    if (used.has(row)) writeRow(array, storage, row, values.subarray(row * dim, (row + 1) * dim))
    else if (!(array instanceof Uint8Array)) writeRow(array, storage, row, new Float32Array(dim).fill(Number.NaN))
    else {
      const end = (row + 1) * rowBytes(dim, storage)
      array.fill(row % 2 ? 0x7f : 0xff, row * rowBytes(dim, storage), end).fill(0xff, end - 4, end)
    }
  }
  return array
}

/** Page tables in any order over a pool of twice as many pages; `token-major` pools hold the rows of all heads. */
function createPages(layout: RowLayout, pageSize: number, K: number, capacity: number, random: () => number) {
  const tables = layout === 'shared' ? K : 1
  const perTable = Math.ceil(capacity / pageSize)
  const numPages = 2 * tables * perTable
  const order = Int32Array.from({ length: numPages }, (_, i) => i).sort(() => random() - 0.5)
  const pages = { pages: order.subarray(0, tables * perTable), pageSize, pagesStride: tables > 1 ? perTable : 0 }
  return { pages, numRows: numPages * pageSize * (layout === 'shared' ? 1 : K) }
}

function createMask({ mask, numHeads, numTokens }: AttendShape, capacity: number, random: () => number): LogitMask {
  const byHead = mask === 'hide-by-head'
  const tokenStride = capacity
  const headStride = byHead ? numTokens * capacity : 0
  const length = (byHead ? numHeads : 1) * numTokens * capacity
  const allowed = Uint8Array.from({ length }, () => (random() < 0.7 ? 1 : 0))
  if (mask === 'allow') return { values: allowed, headStride, tokenStride }
  const values = normal(random, length).map((value, i) => (allowed[i] ? value : Number.NEGATIVE_INFINITY))
  return { values, headStride, tokenStride }
}

/** Rows of storage, in the order of memory, that some query of the case looks at. */
function usedRows(shape: AttendShape, segment: Omit<KeyValueSegment, 'keys' | 'values'>, numRows: number): Set<number> {
  const { numKvHeads: K, numTokens } = shape
  const { capacity, lengths, births, deaths, bias, rows, pages, pageSize = 1, pagesStride = 0, layout } = segment
  const used = new Set<number>()
  for (let k = 0; k < K; k++) {
    for (let j = 0; j < (lengths[k] as number); j++) {
      const page = pages?.[k * pagesStride + Math.floor(j / pageSize)]
      const row = rows?.[k * capacity + j] ?? (page === undefined ? j : page * pageSize + (j % pageSize))
      const at = k * capacity + (rows ? row : j)
      const isSeen = (births?.[at] ?? -NEVER) < firstQuery + numTokens && (deaths?.[at] ?? NEVER) > firstQuery
      if (!isSeen || bias?.[at] === Number.NEGATIVE_INFINITY) continue
      used.add(layout === 'shared' ? row : layout === 'token-major' ? row * K + k : k * capacity + row)
    }
  }
  if (used.size > numRows) throw new Error('a case uses more rows than it stores')
  return used
}
