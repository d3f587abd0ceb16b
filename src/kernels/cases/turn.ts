/** Cases of `turn`: rows of each storage type, made anew from others by rotations of a table, some of them shared. */
import type { StorageType, TurnArgs } from '../contract.ts'
import { allocateRows, rowBytes, storageTypes, writeRow } from '../storage.ts'
import { type OpCase, reference } from './case.ts'
import { createRandom, normal, pickFrom } from './random.ts'
import { createRotation } from './rotate.ts'
import { readRows, shuffled, steps } from './store.ts'

export interface TurnShape {
  readonly name: string
  /** Rotations of the table. */
  readonly numTokens: number
  readonly headDim: number
  readonly capacity: number
  readonly count: number
  readonly storage: StorageType
  readonly isInterleaved?: boolean
  readonly hadamard?: boolean
}

const axes = {
  numTokens: [1, 2, 9],
  headDim: [2, 7, 8, 13, 64, 100, 128],
  capacity: [1, 4, 33, 300],
  storage: storageTypes,
  isInterleaved: [false, true],
  hadamard: [false, true],
} as const

export const turnCase: OpCase<TurnShape, TurnArgs> = {
  axes,
  shapes: axes.storage.flatMap((storage) => [
    ...[8, 13, 100].map((headDim) => ({
      ...{ name: `${storage}, dim ${headDim}`, numTokens: 9, headDim, capacity: 33, count: 17, storage },
    })),
    // More than a task has.
    { name: `${storage}, many`, numTokens: 9, headDim: 128, capacity: 700, count: 650, storage },
    {
      ...{ name: `${storage}, transformed and interleaved`, numTokens: 2, headDim: 37, capacity: 9, count: 9 },
      ...{ storage, isInterleaved: true, hadamard: true },
    },
  ]),
  draw(random) {
    const [numTokens, headDim] = [pickFrom(random, axes.numTokens), pickFrom(random, axes.headDim)]
    const [capacity, storage] = [pickFrom(random, axes.capacity), pickFrom(random, axes.storage)]
    const [isInterleaved, hadamard] = [pickFrom(random, axes.isInterleaved), pickFrom(random, axes.hadamard)]
    const count = Math.floor(random() * (capacity + 1))
    return { name: 'drawn', numTokens, headDim, capacity, count, storage, isInterleaved, hadamard }
  },
  create({ numTokens, headDim, capacity, count, storage, isInterleaved, hadamard }, seed) {
    const random = createRandom(seed)
    const [source, target] = [0, 1].map(() => allocateRows(capacity, headDim, storage).fill(7)) as [
      TurnArgs['source'],
      TurnArgs['target'],
    ]
    for (let row = 0; row < capacity; row++) writeRow(source, storage, row, normal(random, headDim))
    return {
      ...{ source, target, storage, hadamard, headDim, capacity, count, numTokens },
      rows: shuffled(random, capacity),
      turns: Int32Array.from({ length: count }, () => Math.floor(random() * numTokens)),
      rotation: createRotation(random, numTokens, Math.floor(headDim / 2), isInterleaved),
    }
  },
  run(kernels, args) {
    kernels.turn(args)
    return { target: readRows(args.target, args.storage as StorageType, args.headDim) }
  },
  reference: (args) => turnCase.run(reference, args),
  // As `store`.
  tolerance: ({ storage }) => ({ target: 8 * steps[storage] }),
  flops: ({ count, headDim }) => 6 * count * Math.floor(headDim / 2),
  bytes: ({ count, headDim, storage }) => 2 * count * rowBytes(headDim, storage),
}
