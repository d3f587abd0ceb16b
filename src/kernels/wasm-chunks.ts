/**
 * `attend` and `weigh` as calls of the WebAssembly module. Queries and results that lie outside of its memory go in and
 * out by chunks of tokens, so that what a call takes there does not grow with the number of its tokens.
 */
import { attendCall, type CallValue, type KernelArray, weighCall } from './calls.ts'
import { storedRows } from './check-segment.ts'
import type { AttendArgs, KeyValueSegment, LogitMask, Rotation, WeighArgs } from './contract.ts'

/** One call: its numbers and arrays, and those of them that it writes. */
export interface WasmCall {
  readonly values: CallValue[]
  readonly outputs: KernelArray[]
}

/** Calls that go one after the other, and the arrays that all of them read. */
export interface WasmCalls {
  readonly shared: KernelArray[]
  readonly parts: readonly WasmCall[]
  /** Multiply-adds of all parts. */
  readonly work: number
}

export interface ChunkOptions {
  /** Whether an array lies in the memory of the module. */
  isInMemory(array: KernelArray): boolean
  /** Tokens of a tile of a long call. */
  tileTokens(args: AttendArgs): number
}

/**
 * Queries of a chunk at least, all heads counted. From there on tiles are as large as they get (`Tile::strips_of` in
 * native/src/tile.h): calls that are cut between tiles give the same bits as one call does.
 */
const leastQueries = 8192
/** Numbers of a chunk's logits. */
const mostLogits = 1 << 21

export function attendCalls(args: AttendArgs, options: ChunkOptions): WasmCalls {
  const chunks = chunksOf(args, options)
  // Now, since memory that grows between two chunks may detach the arrays in it.
  const toAddress = (value: CallValue) =>
    typeof value === 'object' && options.isInMemory(value) ? value.byteOffset : value
  const parts = chunks.map((chunk) => ({
    values: attendCall(chunk, describeSegment(chunk)).map(toAddress),
    outputs: [chunk.output, chunk.lse, chunk.logits].filter((array) => array !== undefined),
  }))
  return { shared: chunks.length > 1 ? sharedArrays(args) : [], parts, work: multiplyAdds(args) }
}

export function weighCallOf(args: WeighArgs): WasmCall {
  return { values: weighCall(args, describeSegment(args)), outputs: [...args.masses] }
}

/** Whether the mask is of bytes, and how many storage rows a head has. */
const describeSegment = (args: AttendArgs) => (segment: KeyValueSegment) => [
  segment.mask?.values instanceof Uint8Array,
  segment.pages || segment.layout === 'shared' ? storedRows(args, segment) : segment.capacity,
]

/** What a call costs at most: rows that windows and lifetimes hide are counted too. */
function multiplyAdds({ numTokens, numHeads, numKvHeads, headDim, valueDim, segments }: AttendArgs): number {
  let rows = 0
  for (const { lengths } of segments) for (let k = 0; k < numKvHeads; k++) rows += lengths[k] as number
  return rows * (numHeads / numKvHeads) * numTokens * (headDim + valueDim)
}

function chunksOf(args: AttendArgs, options: ChunkOptions): AttendArgs[] {
  const { numTokens } = args
  const tokens = chunkTokens(args, options)
  // The last one takes the rest: no chunk is shorter than the others.
  const count = Math.max(1, Math.floor(numTokens / tokens))
  if (count === 1) return [args]
  return Array.from({ length: count }, (_, i) => cut(args, i * tokens, i + 1 < count ? (i + 1) * tokens : numTokens))
}

function chunkTokens(args: AttendArgs, options: ChunkOptions): number {
  const { query, output, logits, numHeads, numTokens, segments } = args
  const byQueries = Math.ceil(leastQueries / numHeads)
  if (logits && !options.isInMemory(logits)) {
    // Such calls have no tiles.
    const byLogits = Math.floor(mostLogits / (numHeads * Math.max(1, segments[0]?.capacity ?? 0)))
    return Math.max(1, Math.min(byQueries, byLogits))
  }
  if (numTokens < 2 * byQueries || (options.isInMemory(query) && options.isInMemory(output))) return numTokens
  const tile = logits ? 1 : options.tileTokens(args)
  return Math.ceil(byQueries / tile) * tile
}

/** The call for tokens [from, to) alone. */
function cut(args: AttendArgs, from: number, to: number): AttendArgs {
  const { query, output, lse, logits, numHeads, headDim, valueDim, rotation, segments } = args
  const part = <A extends KernelArray>(array: A, numbersPerToken: number) =>
    array.subarray(from * numbersPerToken, to * numbersPerToken) as A
  return {
    ...args,
    numTokens: to - from,
    firstPosition: args.firstPosition + from,
    query: part(query, numHeads * headDim),
    output: part(output, numHeads * valueDim),
    ...(lse && { lse: part(lse, numHeads) }),
    ...(logits && { logits: part(logits, numHeads * (segments[0]?.capacity ?? 0)) }),
    ...(rotation && { rotation: cutRotation(rotation, part) }),
    segments: segments.map((segment) =>
      segment.mask ? { ...segment, mask: cutMask(segment.mask, longestOf(args, segment), from, to) } : segment,
    ),
  }
}

function cutRotation(rotation: Rotation, part: <A extends KernelArray>(array: A, length: number) => A): Rotation {
  const { cos, sin, rotaryPairs } = rotation
  return { ...rotation, cos: part(cos, rotaryPairs), sin: part(sin, rotaryPairs) }
}

/** A mask that differs by head goes in whole (`sharedArrays`): what a chunk needs of it lies in pieces. */
function cutMask(mask: LogitMask, longest: number, from: number, to: number): LogitMask {
  const { values, headStride, tokenStride } = mask
  const end = headStride === 0 ? (to - 1) * tokenStride + longest : undefined
  return { ...mask, values: values.subarray(from * tokenStride, end) }
}

function longestOf({ numKvHeads }: AttendArgs, { lengths }: KeyValueSegment): number {
  return Math.max(...lengths.subarray(0, numKvHeads))
}

/** What all chunks read: copied into memory once. */
function sharedArrays({ segments, alibiSlopes, sinkLogits }: AttendArgs): KernelArray[] {
  const arrays = segments.flatMap((segment) => [
    ...[segment.lengths, segment.keys, segment.values, segment.bias, segment.births, segment.deaths],
    ...[segment.rows, segment.pages, segment.positions],
    segment.mask && segment.mask.headStride > 0 ? segment.mask.values : undefined,
  ])
  return [...arrays, alibiSlopes, sinkLogits].filter((array) => array !== undefined)
}
