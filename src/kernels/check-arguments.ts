/** The checks of each op for backends that can't check by themselves, as the addon makes them: types and sizes. */
import { checkChoice, checkFinite, checkInteger, describe } from '../tensor/check.ts'
import { invalidArgument, type KvasirError } from '../tensor/error.ts'
import { isQuantized } from '../tensor/quantized-row.ts'
import type { KernelArray } from './calls.ts'
import type {
  AttendArgs,
  KeepArgs,
  KeyValueSegment,
  LogitMask,
  RetainArgs,
  RotateArgs,
  Rotation,
  RowTarget,
  SelectArgs,
  StorageType,
  StoreArgs,
  WeighArgs,
} from './contract.ts'
import { NEVER } from './contract.ts'
import { floatTypes, rowLength, storageOf, storagesOf, storageTypes } from './storage.ts'

const maxDim = 65536
const maxCount = NEVER - 1

export function checkAttend(args: AttendArgs): void {
  const { numTokens, numHeads, numKvHeads, headDim, valueDim, firstPosition, segments, softcap = 0 } = args
  count('numTokens', numTokens)
  for (const [name, value] of Object.entries({ numHeads, numKvHeads, headDim, valueDim })) dimension(name, value)
  if (numHeads % numKvHeads !== 0) {
    throw invalid(`numHeads to be a multiple of numKvHeads, got ${numHeads} and ${numKvHeads}`)
  }
  checkInteger('kernels', 'firstPosition', firstPosition, -maxCount, maxCount - numTokens)
  for (const name of ['left', 'right', 'sinks'] as const) if (args[name] !== undefined) count(name, args[name])
  checkFinite('kernels', 'scale', args.scale)
  checkFinite('kernels', 'softcap', softcap)
  if (softcap < 0) throw invalid(`a softcap of at least 0, got ${softcap}`)
  const rows = numTokens * numHeads
  const queryStorage = storageOf(args.query, args.queryStorage)
  checkChoice('kernels', 'queryStorage', queryStorage, floatTypes)
  const Query = arrayTypeOf(queryStorage)
  atLeast('query', Query, args.query, rows * headDim)
  atLeast('output', Query, args.output, rows * valueDim)
  if (args.lse) atLeast('lse', Float32Array, args.lse, rows)
  if (args.logits) {
    if (segments.length !== 1) throw invalid(`one segment for logits, got ${segments.length}`)
    atLeast('logits', Float32Array, args.logits, rows * (segments[0]?.capacity ?? 0))
  }
  checkPerHead('alibiSlopes', args.alibiSlopes, numHeads, Number.isFinite)
  checkPerHead('sinkLogits', args.sinkLogits, numHeads, (value) => value < Number.POSITIVE_INFINITY)
  if (args.rotation) checkRotation(args.rotation, numTokens, headDim)
  if (segments.length > 4) throw invalid(`at most 4 segments, got ${segments.length}`)
  for (const segment of segments) checkSegment(args, segment)
}

export function checkWeigh(args: WeighArgs): void {
  const { numTokens, numHeads, numKvHeads, firstToken = 0, lse, masses, segments } = args
  checkAttend(args)
  count('firstToken', firstToken)
  atLeast('lse', Float32Array, lse, numTokens * numHeads)
  if (masses.length !== segments.length) throw invalid(`masses of ${segments.length} segments, got ${masses.length}`)
  for (const [s, { capacity, lengths, rows }] of segments.entries()) {
    for (let k = 0; k < numKvHeads; k++) {
      const length = lengths[k] as number
      if (length > 0) atLeast('masses', Float32Array, masses[s], k * capacity + (rows ? capacity : length))
    }
  }
}

function checkPerHead(name: string, values: unknown, heads: number, isGood: (value: number) => boolean): void {
  if (values === undefined) return
  atLeast(name, Float32Array, values, heads)
  const bad = (values as Float32Array).subarray(0, heads).find((value) => !isGood(value))
  if (bad !== undefined) throw invalid(`finite numbers in ${name}, got ${bad}`)
}

function checkRotation({ cos, sin, rotaryPairs }: Rotation, numTokens: number, headDim: number): void {
  checkInteger('kernels', 'rotaryPairs', rotaryPairs, 0, Math.floor(headDim / 2))
  atLeast('cos', Float32Array, cos, numTokens * rotaryPairs)
  atLeast('sin', Float32Array, sin, numTokens * rotaryPairs)
}

/** Storage rows that the arrays of a segment hold for each head. */
export function storedRows({ numKvHeads, headDim, valueDim }: AttendArgs, segment: KeyValueSegment): number {
  const heads = segment.layout === 'shared' ? 1 : numKvHeads
  const { keyStorage, valueStorage } = storagesOf(segment)
  const keyRows = segment.keys.length / (heads * rowLength(headDim, keyStorage))
  return Math.floor(Math.min(keyRows, segment.values.length / (heads * rowLength(valueDim, valueStorage))))
}

function checkSegment(args: AttendArgs, segment: KeyValueSegment): void {
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

export function checkStore(args: StoreArgs): void {
  const { numTokens, numKvHeads, stride, counts, tokens, slots } = args
  for (const [name, value] of Object.entries({ numTokens, stride })) count(name, value)
  dimension('numKvHeads', numKvHeads)
  checkTarget(args, numTokens, numKvHeads)
  atLeast('counts', Int32Array, counts, numKvHeads)
  atLeast('tokens', Int32Array, tokens, numKvHeads * stride)
  atLeast('slots', Int32Array, slots, numKvHeads * stride)
  for (let k = 0; k < numKvHeads; k++) {
    checkInteger('kernels', `counts[${k}]`, counts[k], 0, stride)
    within('tokens', tokens, k * stride, counts[k] as number, numTokens)
    within('slots', slots, k * stride, counts[k] as number, args.capacity)
  }
}

function checkTarget(args: RowTarget, numTokens: number, numKvHeads: number): void {
  const { headDim, layout = 'head-major', capacity } = args
  dimension('headDim', headDim)
  checkChoice('kernels', 'layout', layout, ['head-major', 'token-major', 'shared'])
  count('capacity', capacity)
  const rows = (layout === 'shared' ? 1 : numKvHeads) * capacity
  atLeast('source', Float32Array, args.source, numTokens * numKvHeads * headDim)
  const storage = storageOf(args.target, args.storage)
  atLeast('target', arrayTypeOf(storage), args.target, rows * rowLength(headDim, storage))
  if (args.rotation) checkRotation(args.rotation, numTokens, headDim)
}

export function checkRotate(args: RotateArgs): void {
  const { vectors, numTokens, numHeads, headDim } = args
  count('numTokens', numTokens)
  for (const [name, value] of Object.entries({ numHeads, headDim })) dimension(name, value)
  atLeast('vectors', Float32Array, vectors, numTokens * numHeads * headDim)
  checkRotation(args, numTokens, headDim)
}

export function checkRetain({ kept, numTokens, scores, rowDeaths, tokenDeaths, counts, tokens, slots }: RetainArgs) {
  const { numKvHeads: K, window: W, sinks, recent } = kept
  dimension('numKvHeads', K)
  checkInteger('kernels', 'window', W, 1, maxCount)
  checkInteger('kernels', 'sinks', sinks, 0, W)
  checkInteger('kernels', 'recent', recent, 0, W - sinks)
  checkInteger('kernels', 'numTokens', numTokens, 0, maxCount - W)
  atLeast('kept.scores', Float32Array, kept.scores, K * W)
  atLeast('kept.positions', Float64Array, kept.positions, K * W)
  atLeast('kept.heap', Int32Array, kept.heap, K * W)
  atLeast('kept.accepted', Float64Array, kept.accepted, K)
  for (const name of ['lengths', 'heapLengths'] as const) atLeast(`kept.${name}`, Int32Array, kept[name], K)
  atLeast('kept.ring', Int32Array, kept.ring, K * recent)
  atLeast('scores', Float32Array, scores, numTokens * K)
  if (rowDeaths) atLeast('rowDeaths', Int32Array, rowDeaths, K * W)
  atLeast('tokenDeaths', Int32Array, tokenDeaths, K * numTokens)
  atLeast('counts', Int32Array, counts, K)
  atLeast('tokens', Int32Array, tokens, K * Math.min(numTokens, W))
  atLeast('slots', Int32Array, slots, K * Math.min(numTokens, W))
}

export function checkKeep(args: KeepArgs): void {
  const { kept, numTokens, targets } = args
  checkRetain(args)
  if (targets.length > 3) throw invalid(`at most 3 targets, got ${targets.length}`)
  for (const target of targets) {
    checkTarget(target, numTokens, kept.numKvHeads)
    if (target.capacity < kept.window) throw invalid(`targets of at least ${kept.window} rows, got ${target.capacity}`)
  }
}

export function checkSelect({ numKvHeads, capacity, numRows, window, scores, rows, lengths }: SelectArgs): void {
  dimension('numKvHeads', numKvHeads)
  count('capacity', capacity)
  checkInteger('kernels', 'numRows', numRows, 0, capacity)
  checkInteger('kernels', 'window', window, 1, maxCount)
  atLeast('scores', Float32Array, scores, numKvHeads * capacity)
  atLeast('rows', Int32Array, rows, numKvHeads * capacity)
  atLeast('lengths', Int32Array, lengths, numKvHeads)
}

function dimension(name: string, value: number): void {
  checkInteger('kernels', name, value, 1, maxDim)
}

function count(name: string, value: number): void {
  checkInteger('kernels', name, value, 0, maxCount)
}

type ArrayType = new (length: number) => KernelArray

function atLeast(name: string, Type: ArrayType, array: unknown, length: number): void {
  if (!(array instanceof Type)) {
    throw invalidArgument('kernels', `expected a ${Type.name} for ${name}, got ${describe(array)}`)
  }
  if (array.length >= length) return
  throw invalidArgument('kernels', `expected at least ${length} elements in ${name}, got ${array.length}`)
}

/** @throws KvasirError for a storage that is unknown */
function arrayTypeOf(storage: StorageType): ArrayType {
  checkChoice('kernels', 'storage', storage, storageTypes)
  if (isQuantized(storage)) return Uint8Array
  return storage === 'f32' ? Float32Array : Uint16Array
}

function invalid(expected: string): KvasirError {
  return invalidArgument('kernels', `expected ${expected}`)
}

function within(name: string, entries: Int32Array, start: number, length: number, limit: number): void {
  for (let i = start; i < start + length; i++) {
    const entry = entries[i] as number
    if (entry < 0 || entry >= limit) throw invalidArgument('kernels', `expected ${name} below ${limit}, got ${entry}`)
  }
}
