/** Cases of `store`: each storage type and layout, numbers that round awkwardly, rows rotated on their way. */
import type { RowLayout, RowTarget, StorageArray, StorageType, StoreArgs } from '../contract.ts'
import { allocateRows, readRow, rowBytes, rowLength, storageTypes } from '../storage.ts'
import { type OpCase, reference } from './case.ts'
import { createRandom, normal, pickFrom } from './random.ts'
import { createRotation } from './rotate.ts'

export interface StoreShape {
  readonly name: string
  readonly numTokens: number
  readonly numKvHeads: number
  readonly headDim: number
  readonly capacity: number
  readonly storage?: StorageType
  readonly layout?: RowLayout
  readonly rotation?: 'half' | 'interleaved'
  readonly hadamard?: boolean
}

const axes = {
  numTokens: [0, 1, 2, 6, 17],
  numKvHeads: [1, 2, 3],
  headDim: [1, 7, 8, 13, 59, 64, 100, 111, 128],
  capacity: [0, 1, 4, 33],
  storage: storageTypes,
  layout: ['head-major', 'token-major', 'shared'],
  rotation: [undefined, 'half', 'interleaved'],
  hadamard: [false, false, true],
} as const

/** The distance of neighbours at 1, where that is the largest number of a row. */
export const steps = {
  ...{ f32: 2 ** -22, f16: 2 ** -11, bf16: 2 ** -8 },
  ...{ int8: 1 / 127, 'fp8-e4m3': 1 / 14, 'fp8-e5m2': 1 / 7, int4: 1 / 7 },
} as const satisfies Record<StorageType, number>

/** Around the largest f16, the least, and halfway between neighbours. */
const awkward = [
  ...[65519.9, 65520, 1e9, -1e-8, 5.9604645e-8, 2.98e-8, 6.1e-5, Infinity, -Infinity, 0, -0],
  ...[1.0009765625, 1.00048828125, 1.00390625, 3.3895e38],
]

export const storeCase: OpCase<StoreShape, StoreArgs> = {
  axes,
  shapes: axes.storage.flatMap((storage) => [
    ...[1, 7, 8, 64, 100].map((headDim) => ({
      ...{ name: `${storage}, dim ${headDim}`, numTokens: 6, numKvHeads: 2, headDim, capacity: 4, storage },
    })),
    ...axes.layout.map((layout) => ({
      ...{ name: `${storage}, ${layout}`, numTokens: 17, numKvHeads: 3, headDim: 13, capacity: 33, storage, layout },
    })),
    ...(['half', 'interleaved'] as const).map((rotation) => ({
      ...{ name: `${storage}, rotated (${rotation})`, numTokens: 6, numKvHeads: 2, headDim: 59, capacity: 9 },
      ...{ storage, rotation },
    })),
    ...[96, 37].map((headDim) => ({
      ...{ name: `${storage}, transformed (dim ${headDim})`, numTokens: 6, numKvHeads: 2, headDim, capacity: 9 },
      ...{ storage, rotation: 'half' as const, hadamard: true },
    })),
  ]),
  draw(random) {
    const [numTokens, numKvHeads] = [pickFrom(random, axes.numTokens), pickFrom(random, axes.numKvHeads)]
    const [headDim, capacity] = [pickFrom(random, axes.headDim), pickFrom(random, axes.capacity)]
    const [storage, layout] = [pickFrom(random, axes.storage), pickFrom(random, axes.layout)]
    const [rotation, hadamard] = [pickFrom(random, axes.rotation), pickFrom(random, axes.hadamard)]
    return { name: 'drawn', numTokens, numKvHeads, headDim, capacity, storage, layout, rotation, hadamard }
  },
  create(shape, seed) {
    const { numTokens, numKvHeads: K, headDim, capacity, storage = 'f32', layout, rotation, hadamard } = shape
    const random = createRandom(seed)
    const source = normal(random, numTokens * K * headDim)
    // Each row is scaled by its largest number, infinities make all of it NaN: those stay in one row.
    if (!rotation && !hadamard) source.set(awkward.slice(0, Math.min(headDim, source.length)), 0)
    const stride = Math.min(numTokens, capacity) + 1
    const counts = Int32Array.from({ length: K }, (_, k) => Math.max(0, stride - 1 - k))
    // What lies past the counts is nonsense that nobody may look at.
    const [tokens, slots] = [new Int32Array(K * stride).fill(-1), new Int32Array(K * stride).fill(99_999)]
    const free = shuffled(random, capacity)
    for (let k = 0; k < K; k++) {
      const order = shuffled(random, numTokens)
      tokens.set(order.subarray(0, counts[k]), k * stride)
      // In a shared pool no two heads may take the same row.
      const first = layout === 'shared' ? counts.subarray(0, k).reduce((a, b) => a + b, 0) : 0
      if (first + (counts[k] as number) > capacity) counts[k] = Math.max(0, capacity - first)
      slots.set(free.subarray(first, first + (counts[k] as number)), k * stride)
    }
    const rows = (layout === 'shared' ? 1 : K) * capacity
    const pairs = Math.floor(headDim / 2)
    const first = {
      ...{ source, headDim, capacity, storage, layout, hadamard },
      target: allocateRows(rows, headDim, storage).fill(7),
      rotation: rotation && createRotation(random, numTokens, pairs, rotation === 'interleaved'),
    }
    // Other rows of another width, as values are beside keys.
    const second: RowTarget = {
      ...{ source: normal(random, numTokens * K * (headDim + 3)), headDim: headDim + 3, capacity, layout },
      target: new Float32Array(rows * (headDim + 3)).fill(7),
    }
    return { targets: [first, second], numTokens, numKvHeads: K, counts, tokens, slots, stride }
  },
  run(kernels, args) {
    kernels.store(args)
    const [first, second] = args.targets as [RowTarget, RowTarget]
    const { target, storage = 'f32', headDim, rotation, hadamard } = first
    // Rows that nothing was written to are part of the result. Without rotation all bits must be right.
    if (!rotation && !hadamard) return { target, second: second.target }
    return { target: readRows(target, storage, headDim), second: second.target }
  },
  reference: (args) => storeCase.run(reference, args),
  // Numbers that are turned or transformed may fall to the other side of a rounding boundary, which is a step of the
  // type away from it for numbers of up to `largest`.
  tolerance: ({ rotation, hadamard, storage = 'f32' }) => ({
    target: rotation || hadamard ? 8 * steps[storage] : 0,
    second: 0,
  }),
  flops: ({ numTokens, numKvHeads, headDim, rotation }) => {
    return rotation ? 6 * numTokens * numKvHeads * Math.floor(headDim / 2) : 0
  },
  bytes: ({ numTokens, numKvHeads, headDim, capacity, storage = 'f32' }) => {
    return Math.min(numTokens, capacity) * numKvHeads * (4 * headDim + rowBytes(headDim, storage) + 8 * (headDim + 3))
  },
}

/** The numbers of all rows. */
export function readRows(array: StorageArray, storage: StorageType, headDim: number): number[] {
  const rows = Array.from({ length: array.length / rowLength(headDim, storage) }, (_, row) => row)
  return rows.flatMap((row) => Array.from(readRow(array, storage, row, headDim)))
}

export function shuffled(random: () => number, length: number): Int32Array {
  const order = Int32Array.from({ length }, (_, i) => i)
  for (let i = length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1))
    const [a, b] = [order[i] as number, order[j] as number]
    order[i] = b
    order[j] = a
  }
  return order
}
