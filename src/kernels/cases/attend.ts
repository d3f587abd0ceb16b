/** Cases of `attend`. */
import { isQuantized } from '../../tensor/quantized-row.ts'
import type { AttendArgs } from '../contract.ts'
import { attend } from '../reference-attend.ts'
import { rowBytes, storageCodecs, storageOf, storageTypes } from '../storage.ts'
import { type AttendShape, createAttendCase } from './attend-inputs.ts'
import { attendShapes } from './attend-shapes.ts'
import { largestDifference, type OpCase, type Results, reference } from './case.ts'
import { pickFrom } from './random.ts'

const axes = {
  numTokens: [1, 1, 1, 2, 3, 17, 32, 33, 75],
  numKvHeads: [1, 2, 3, 4],
  group: [1, 2, 4, 7, 8, 12, 16, 20, 32],
  headDim: [1, 2, 13, 40, 59, 64, 72, 80, 96, 111, 128, 192, 256, 320, 576],
  valueDim: [undefined, undefined, 1, 13, 53, 64, 128, 512],
  rows: [0, 1, 2, 17, 31, 32, 33, 64, 65, 97, 113, 200, 512, 1025],
  numSegments: [0, 1, 1, 2, 2, 3, 4],
  storage: storageTypes,
  keyStorage: [undefined, undefined, undefined, ...storageTypes],
  otherStorage: [undefined, undefined, undefined, ...storageTypes],
  hadamard: [false, false, true],
  queryStorage: ['f32', 'f32', 'f16', 'bf16'],
  visibility: ['all', 'all', 'causal', 'window', 'random'],
  layout: ['head-major', 'token-major', 'shared'],
  entries: ['rows', 'gathers', 'pages'],
  pageSize: [1, 5, 16, 31],
  bias: ['none', 'none', 'random', 'some-hidden', 'all-hidden'],
  queryScale: [undefined, undefined, 30],
  positions: [undefined, 'consecutive', 'listed'],
  left: [undefined, 0, 1, 7, 23, 100],
  right: [undefined, 0, 0, 4],
  sinks: [undefined, 1, 4],
  softcap: [undefined, undefined, 2.5, 30],
  alibi: [false, true],
  sinkLogits: [undefined, undefined, 'all', 'some'],
  mask: [undefined, undefined, 'allow', 'add', 'hide-by-head'],
  rotation: [undefined, undefined, 'half', 'interleaved'],
} as const

/** Powers of ten: the operations of drawn shapes. The reference takes about a tenth of a second for the largest. */
const drawn = { least: 3, most: 6 } as const

export const attendCase: OpCase<AttendShape, AttendArgs> = {
  axes,
  shapes: attendShapes,
  draw(random) {
    // Small ones more often: what goes wrong goes wrong at the edges, and those are cheap.
    const most = 10 ** (drawn.least + (drawn.most - drawn.least) * random())
    for (;;) {
      const shape = drawShape(random)
      if (attendCase.flops(shape) <= most) return shape
    }
  },
  create: createAttendCase,
  run(kernels, args) {
    kernels.attend(args)
    return resultsOf(args)
  },
  reference(args) {
    // A Float32Array takes the results before they are rounded to the type of the queries.
    const exact = { ...args, output: new Float32Array(args.output.length) }
    reference.attend(exact)
    return resultsOf(exact)
  },
  // Attention as anyone would write it in f32 is what a backend's error is measured against.
  tolerance(shape, naive, expected) {
    attend(naive, Math.fround)
    const { output, lse } = resultsOf(naive)
    return {
      output: 2 * largestDifference(output ?? [], expected.output ?? []) + (isOfFloats(shape) ? 1e-6 : 1e-5),
      lse: 2 * largestDifference(lse ?? [], expected.lse ?? []) + 1e-5,
    }
  },
  flops: (shape) => 2 * countPairs(shape) * (shape.headDim + (shape.valueDim ?? shape.headDim)),
  bytes(shape) {
    const {
      numTokens,
      numHeads,
      numKvHeads,
      headDim,
      valueDim = headDim,
      queryStorage = 'f32',
      storage = 'f32',
      keyStorage = storage,
      valueStorage = storage,
    } = shape
    const queries = numTokens * numHeads * (headDim + valueDim) * storageCodecs[queryStorage].bytes
    return (
      queries + countSeenRows(shape) * numKvHeads * (rowBytes(headDim, keyStorage) + rowBytes(valueDim, valueStorage))
    )
  },
}

/** All K and V are stored number by number. */
function isOfFloats({ storage = 'f32', keyStorage, valueStorage, otherStorage }: AttendShape): boolean {
  return [storage, keyStorage, valueStorage, otherStorage].every((type) => type === undefined || !isQuantized(type))
}

/** Stored tokens. */
function countRows({ segments }: AttendShape): number {
  return segments.reduce((a, b) => a + b, 0)
}

/** Rows that some query sees by its position. */
function countSeenRows(shape: AttendShape): number {
  const total = countRows(shape)
  if (shape.positions !== 'consecutive' || shape.left === undefined) return total
  return Math.min(total, shape.numTokens + shape.left)
}

/** Pairs of a query and a row that it sees by its position. Lifetimes hide more, and whole blocks of those cost nothing. */
function countPairs(shape: AttendShape): number {
  const { numTokens, numHeads, left = Number.POSITIVE_INFINITY, right = Number.POSITIVE_INFINITY } = shape
  const total = countRows(shape)
  if (shape.positions !== 'consecutive') return numTokens * numHeads * total
  let pairs = 0
  for (let t = 0; t < numTokens; t++) {
    const own = total - numTokens + t // the row at the position of the query
    pairs += Math.max(0, Math.min(total - 1, own + right) - Math.max(0, own - left) + 1)
  }
  return numHeads * pairs
}

function resultsOf({ output, lse, queryStorage }: AttendArgs): Results {
  const { read } = storageCodecs[output instanceof Float32Array ? 'f32' : storageOf(output, queryStorage)]
  return { output: Float32Array.from(output, read), lse: lse ?? [] }
}

/** A value of each axis, less what does not go together. */
function drawShape(random: () => number): AttendShape {
  const one = <T>(choices: readonly T[]): T => pickFrom(random, choices)
  const numKvHeads = one(axes.numKvHeads)
  const segments = Array.from({ length: one(axes.numSegments) }, () => one(axes.rows))
  const entries = one(axes.entries)
  const layout = entries === 'pages' ? one(['token-major', 'shared'] as const) : one(axes.layout)
  const positions = one(axes.positions)
  const window = { left: one(axes.left), right: one(axes.right), sinks: one(axes.sinks), alibi: one(axes.alibi) }
  return {
    ...{ name: 'drawn', numTokens: one(axes.numTokens), numHeads: numKvHeads * one(axes.group), numKvHeads },
    ...{ headDim: one(axes.headDim), valueDim: one(axes.valueDim), segments, layout, positions },
    ...{ storage: one(axes.storage), keyStorage: one(axes.keyStorage), otherStorage: one(axes.otherStorage) },
    ...{ hadamard: one(axes.hadamard), queryStorage: one(axes.queryStorage), visibility: one(axes.visibility) },
    ...{ gathers: entries === 'gathers', pageSize: entries === 'pages' ? one(axes.pageSize) : undefined },
    ...{ bias: one(axes.bias), queryScale: one(axes.queryScale), softcap: one(axes.softcap), mask: one(axes.mask) },
    ...{ sinkLogits: one(axes.sinkLogits), rotation: one(axes.rotation) },
    ...(positions ? window : {}),
  }
}
