/** Cases of `store`: each storage type and layout, numbers that round awkwardly, rows rotated on their way. */
import type { RowLayout, StorageType, StoreArgs } from '../contract.ts'
import { storageCodecs, toStorage } from '../storage.ts'
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
}

const axes = {
  numTokens: [0, 1, 2, 6, 17],
  numKvHeads: [1, 2, 3],
  headDim: [1, 7, 8, 13, 59, 64, 100, 111, 128],
  capacity: [0, 1, 4, 33],
  storage: ['f32', 'f16', 'bf16'],
  layout: ['head-major', 'token-major', 'shared'],
  rotation: [undefined, 'half', 'interleaved'],
} as const

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
  ]),
  draw(random) {
    const [numTokens, numKvHeads] = [pickFrom(random, axes.numTokens), pickFrom(random, axes.numKvHeads)]
    const [headDim, capacity] = [pickFrom(random, axes.headDim), pickFrom(random, axes.capacity)]
    const [storage, layout] = [pickFrom(random, axes.storage), pickFrom(random, axes.layout)]
    const rotation = pickFrom(random, axes.rotation)
    return { name: 'drawn', numTokens, numKvHeads, headDim, capacity, storage, layout, rotation }
  },
  create(shape, seed) {
    const { numTokens, numKvHeads: K, headDim, capacity, storage = 'f32', layout, rotation } = shape
    const random = createRandom(seed)
    const source = normal(random, numTokens * K * headDim)
    if (!rotation) source.set(awkward.slice(0, Math.min(headDim, source.length)), 0)
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
    return {
      ...{ source, numTokens, numKvHeads: K, headDim, capacity, counts, tokens, slots, stride, storage, layout },
      target: toStorage(new Float32Array(rows * headDim).fill(7), storage),
      rotation: rotation && createRotation(random, numTokens, Math.floor(headDim / 2), rotation === 'interleaved'),
    }
  },
  run(kernels, args) {
    kernels.store(args)
    // Rows that nothing was written to are part of the result. Without rotation all bits must be right.
    const { read } = storageCodecs[args.storage ?? 'f32']
    return { target: args.rotation ? Float32Array.from(args.target, read) : args.target }
  },
  reference: (args) => storeCase.run(reference, args),
  // Rotated numbers are below 8 and may fall to the other side of a rounding boundary.
  tolerance: ({ rotation, storage = 'f32' }) => ({
    target: rotation ? { f32: 1e-6, f16: 2 ** -8, bf16: 2 ** -5 }[storage] : 0,
  }),
  flops: ({ numTokens, numKvHeads, headDim, rotation }) => {
    return rotation ? 6 * numTokens * numKvHeads * Math.floor(headDim / 2) : 0
  },
  bytes: ({ numTokens, numKvHeads, headDim, capacity, storage = 'f32' }) => {
    return Math.min(numTokens, capacity) * numKvHeads * headDim * (4 + storageCodecs[storage].bytes)
  },
}

function shuffled(random: () => number, length: number): Int32Array {
  const order = Int32Array.from({ length }, (_, i) => i)
  for (let i = length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1))
    const [a, b] = [order[i] as number, order[j] as number]
    order[i] = b
    order[j] = a
  }
  return order
}
