/** The checks of each op for backends that can't check by themselves, as the addon makes them: types and sizes. */
import { checkInteger, describe } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import type { KernelArray } from './calls.ts'
import type { AttendArgs, KeyValueSegment, RetainArgs, RotateArgs, SelectArgs, StoreArgs } from './contract.ts'
import { NEVER } from './contract.ts'

const maxDim = 65536
const maxCount = NEVER - 1

export function checkAttend(args: AttendArgs): void {
  const { numTokens, numHeads, numKvHeads, headDim, valueDim, firstPosition, segments } = args
  count('numTokens', numTokens)
  for (const [name, value] of Object.entries({ numHeads, numKvHeads, headDim, valueDim })) dimension(name, value)
  if (numHeads % numKvHeads !== 0) throw invalidArgument('kernels', 'expected numHeads to be a multiple of numKvHeads')
  checkInteger('kernels', 'firstPosition', firstPosition, -maxCount, maxCount - numTokens)
  if (typeof args.scale !== 'number') throw invalidArgument('kernels', 'expected a number for scale')
  const rows = numTokens * numHeads
  atLeast('query', Float32Array, args.query, rows * headDim)
  atLeast('output', Float32Array, args.output, rows * valueDim)
  if (args.lse) atLeast('lse', Float32Array, args.lse, rows)
  if (segments.length > 4) throw invalidArgument('kernels', `expected at most 4 segments, got ${segments.length}`)
  for (const segment of segments) checkSegment(args, segment)
}

function checkSegment({ numKvHeads, headDim, valueDim, segments }: AttendArgs, segment: KeyValueSegment): void {
  const { keys, values, capacity, lengths, isTokenMajor, rows } = segment
  count('capacity', capacity)
  atLeast('lengths', Int32Array, lengths, numKvHeads)
  const isHalf = segments[0]?.keys instanceof Uint16Array
  if (keys instanceof Uint16Array !== isHalf || values instanceof Uint16Array !== isHalf) {
    throw invalidArgument('kernels', 'keys and values are not of one storage type')
  }
  for (let k = 0; k < numKvHeads; k++) {
    const length = lengths[k] as number
    checkInteger('kernels', `lengths[${k}]`, length, 0, capacity)
    if (length === 0) continue
    const used = rows ? capacity : length
    const end = k * capacity + used
    const last = isTokenMajor ? (used - 1) * numKvHeads + k + 1 : end
    atLeast('keys', storageTypeOf(keys), keys, last * headDim)
    atLeast('values', storageTypeOf(values), values, last * valueDim)
    if (segment.bias) atLeast('bias', Float32Array, segment.bias, end)
    for (const name of ['births', 'deaths'] as const) {
      const array = segment[name]
      if (array) atLeast(name, Int32Array, array, end)
    }
    if (rows) {
      atLeast('rows', Int32Array, rows, k * capacity + length)
      within('rows', rows, k * capacity, length, capacity)
    }
  }
}

export function checkStore(args: StoreArgs): void {
  const { numTokens, numKvHeads, headDim, capacity, stride, counts, tokens, slots } = args
  for (const [name, value] of Object.entries({ numTokens, capacity, stride })) count(name, value)
  for (const [name, value] of Object.entries({ numKvHeads, headDim })) dimension(name, value)
  atLeast('source', Float32Array, args.source, numTokens * numKvHeads * headDim)
  atLeast('target', storageTypeOf(args.target), args.target, numKvHeads * capacity * headDim)
  atLeast('counts', Int32Array, counts, numKvHeads)
  atLeast('tokens', Int32Array, tokens, numKvHeads * stride)
  atLeast('slots', Int32Array, slots, numKvHeads * stride)
  for (let k = 0; k < numKvHeads; k++) {
    checkInteger('kernels', `counts[${k}]`, counts[k], 0, stride)
    within('tokens', tokens, k * stride, counts[k] as number, numTokens)
    within('slots', slots, k * stride, counts[k] as number, capacity)
  }
}

export function checkRotate({ vectors, cos, sin, numTokens, numHeads, headDim, rotaryPairs }: RotateArgs): void {
  count('numTokens', numTokens)
  for (const [name, value] of Object.entries({ numHeads, headDim })) dimension(name, value)
  checkInteger('kernels', 'rotaryPairs', rotaryPairs, 0, Math.floor(headDim / 2))
  atLeast('vectors', Float32Array, vectors, numTokens * numHeads * headDim)
  atLeast('cos', Float32Array, cos, numTokens * rotaryPairs)
  atLeast('sin', Float32Array, sin, numTokens * rotaryPairs)
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

function storageTypeOf(array: unknown): ArrayType {
  return array instanceof Uint16Array ? Uint16Array : Float32Array
}

function within(name: string, entries: Int32Array, start: number, length: number, limit: number): void {
  for (let i = start; i < start + length; i++) {
    const entry = entries[i] as number
    if (entry < 0 || entry >= limit) throw invalidArgument('kernels', `expected ${name} below ${limit}, got ${entry}`)
  }
}
