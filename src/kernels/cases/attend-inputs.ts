/** The inputs of attention cases. */
import type { AttendArgs, FloatType, RowLayout, StorageType } from '../contract.ts'
import { toStorage } from '../storage.ts'
import { createSegment, firstQuery } from './attend-segment.ts'
import { createRandom, normal } from './random.ts'
import { createRotation } from './rotate.ts'

export interface AttendShape {
  readonly name: string
  readonly numTokens: number
  readonly numHeads: number
  readonly numKvHeads: number
  readonly headDim: number
  readonly valueDim?: number
  /** Rows of each segment; heads get a few rows less than that, so that lengths differ. */
  readonly segments: readonly number[]
  readonly storage?: StorageType
  /** Of K or V alone. */
  readonly keyStorage?: StorageType
  readonly valueStorage?: StorageType
  /** Of every second segment, as recent rows may be stored otherwise than old ones. */
  readonly otherStorage?: StorageType
  /** K and V are taken to be transformed. */
  readonly hadamard?: boolean
  /** Which rows a query sees: all, those before it, a window, lifetimes at random. */
  readonly visibility?: 'all' | 'causal' | 'window' | 'random'
  readonly layout?: RowLayout
  /** Rows are listed backwards. */
  readonly gathers?: boolean
  /** Rows lie in pages of this size, in any order, in a pool with more pages; `shared`: one table for all heads. */
  readonly pageSize?: number
  readonly bias?: 'none' | 'random' | 'some-hidden' | 'all-hidden'
  /** Factor on q: large ones make logits of hundreds. */
  readonly queryScale?: number
  readonly queryStorage?: FloatType
  /** Positions of the rows, consecutive over all segments so that the last row is at the last query, or as a list. */
  readonly positions?: 'consecutive' | 'listed'
  readonly left?: number
  readonly right?: number
  readonly sinks?: number
  readonly softcap?: number
  readonly alibi?: boolean
  /** Learned sinks; `some`: -Infinity for the first head. */
  readonly sinkLogits?: 'all' | 'some'
  readonly mask?: 'allow' | 'add' | 'hide-by-head'
  readonly rotation?: 'half' | 'interleaved'
}

/** Inputs of a case. Storage that no query may look at holds NaN. */
export function createAttendCase(shape: AttendShape, seed: number): AttendArgs {
  const { numTokens, numHeads, numKvHeads, headDim, valueDim = headDim, queryStorage = 'f32' } = shape
  const random = createRandom(seed)
  const total = shape.segments.reduce((a, b) => a + b, 0)
  let before = 0
  const segments = shape.segments.map((rows, n) => {
    const storage = n % 2 ? (shape.otherStorage ?? shape.storage) : shape.storage
    const place = {
      isLast: n === shape.segments.length - 1,
      storage,
      position: firstQuery + numTokens - total + before,
    }
    before += rows
    return createSegment(shape, rows, place, random)
  })
  const perHead = (lowest: number): Float32Array => Float32Array.from({ length: numHeads }, () => lowest + random())
  return {
    query: toStorage(normal(random, numTokens * numHeads * headDim, shape.queryScale), queryStorage),
    output: toStorage(new Float32Array(numTokens * numHeads * valueDim).fill(Number.NaN), queryStorage),
    queryStorage,
    lse: new Float32Array(numTokens * numHeads).fill(Number.NaN),
    numTokens,
    numHeads,
    numKvHeads,
    headDim,
    valueDim,
    scale: 1 / Math.sqrt(headDim),
    firstPosition: firstQuery,
    ...pick(shape, ['left', 'right', 'sinks', 'softcap', 'hadamard']),
    alibiSlopes: shape.alibi ? perHead(0.01) : undefined,
    sinkLogits: shape.sinkLogits && perHead(0).fill(Number.NEGATIVE_INFINITY, 0, shape.sinkLogits === 'some' ? 1 : 0),
    rotation:
      shape.rotation && createRotation(random, numTokens, Math.floor(headDim / 3), shape.rotation === 'interleaved'),
    segments,
  }
}

function pick<T extends object, N extends keyof T>(from: T, names: readonly N[]): Partial<Pick<T, N>> {
  const given = names.filter((name) => from[name] !== undefined)
  return Object.fromEntries(given.map((name) => [name, from[name]])) as Partial<Pick<T, N>>
}
