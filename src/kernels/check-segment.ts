/** The checks of stored tokens that are attended to: sizes of arrays, and indices within them. */
import { checkChoice, checkInteger } from '../tensor/check.ts'
import { type ArrayType, arrayTypeOf, atLeast, count, invalid, maxCount, within } from './check-values.ts'
import type { AttendArgs, KeyValueSegment, LogitMask } from './contract.ts'
import { rowLength, storagesOf } from './storage.ts'

/** Storage rows that the arrays of a segment hold for each head. */
export function storedRows({ numKvHeads, headDim, valueDim }: AttendArgs, segment: KeyValueSegment): number {
  const heads = segment.layout === 'shared' ? 1 : numKvHeads
  const { keyStorage, valueStorage } = storagesOf(segment)
  const keyRows = segment.keys.length / (heads * rowLength(headDim, keyStorage))
  return Math.floor(Math.min(keyRows, segment.values.length / (heads * rowLength(valueDim, valueStorage))))
}

export function checkSegment(args: AttendArgs, segment: KeyValueSegment): void {
  const { numKvHeads } = args
  const { keys, values, capacity, lengths, layout = 'head-major', rows, pages } = segment
  checkChoice('kernels', 'layout', layout, ['head-major', 'token-major', 'shared'])
  count('capacity', capacity)
  atLeast('lengths', Int32Array, lengths, numKvHeads)
  const { keyStorage, valueStorage } = storagesOf(segment)
  atLeast('keys', arrayTypeOf(keyStorage), keys, 0)
  atLeast('values', arrayTypeOf(valueStorage), values, 0)
  if (rows && pages) throw invalid('rows or pages, got both')
  if (args.alibiSlopes && segment.firstPosition === undefined && !segment.positions) {
    throw invalid('positions in every segment for alibiSlopes, got none')
  }
  if (segment.firstPosition !== undefined) {
    checkInteger('kernels', 'segment.firstPosition', segment.firstPosition, -maxCount, maxCount - capacity)
  }
  if (pages) {
    if (layout === 'head-major') throw invalid('pages in token-major or shared layout, got head-major')
    checkInteger('kernels', 'pageSize', segment.pageSize, 1, maxCount)
    count('pagesStride', segment.pagesStride ?? 0)
  }
  for (let k = 0; k < numKvHeads; k++) checkHead(args, segment, k)
  if (segment.mask) checkMask(args, segment)
}

/** Heads may end short of the array (a view into the middle of a store): what is used must lie within. */
function checkHead(args: AttendArgs, segment: KeyValueSegment, k: number): void {
  const { numKvHeads: K, headDim, valueDim } = args
  const { keys, values, capacity: C, layout, rows, pages, pageSize = 1, pagesStride = 0 } = segment
  const length = segment.lengths[k] as number
  checkInteger('kernels', `lengths[${k}]`, length, 0, C)
  if (length === 0) return
  const stored = storedRows(args, segment)
  if (pages) {
    const [at, used] = [k * pagesStride, Math.ceil(length / pageSize)]
    atLeast('pages', Int32Array, pages, at + used)
    within('pages', pages, at, used, Math.floor(stored / pageSize))
  } else {
    const used = rows ? C : length
    const shared = rows ? 0 : length
    const last = layout === 'shared' ? shared : layout === 'token-major' ? (used - 1) * K + k + 1 : k * C + used
    const { keyStorage, valueStorage } = storagesOf(segment)
    atLeast('keys', keys.constructor as ArrayType, keys, last * rowLength(headDim, keyStorage))
    atLeast('values', values.constructor as ArrayType, values, last * rowLength(valueDim, valueStorage))
  }
  const end = k * C + (rows ? C : length)
  if (segment.bias) atLeast('bias', Float32Array, segment.bias, end)
  for (const name of ['births', 'deaths', 'positions'] as const) {
    if (segment[name]) atLeast(name, Int32Array, segment[name], end)
  }
  if (!rows) return
  atLeast('rows', Int32Array, rows, k * C + length)
  within('rows', rows, k * C, length, layout === 'shared' ? Math.min(C, stored) : C)
}

function checkMask({ numTokens, numHeads, numKvHeads }: AttendArgs, { mask, lengths }: KeyValueSegment): void {
  const { values, headStride, tokenStride } = mask as LogitMask
  count('mask.headStride', headStride)
  count('mask.tokenStride', tokenStride)
  const longest = Math.max(...lengths.subarray(0, numKvHeads))
  const last = (numHeads - 1) * headStride + (numTokens - 1) * tokenStride
  const needed = longest === 0 || numTokens === 0 ? 0 : last + longest
  atLeast('mask.values', values instanceof Uint8Array ? Uint8Array : Float32Array, values, needed)
}
