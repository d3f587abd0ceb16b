/** Cases of `keep`: those of `retain`, whose tokens are rows of keys, rotated on their way, and of values. */
import type { KeepArgs, RowLayout, StorageType } from '../contract.ts'
import { allocateRows, readRow, rowBytes, storageTypes } from '../storage.ts'
import { type OpCase, reference } from './case.ts'
import { createRandom, normal, pickFrom } from './random.ts'
import { type RetainShape, retainCase } from './retain.ts'
import { createRotation } from './rotate.ts'

export interface KeepShape extends RetainShape {
  readonly headDim: number
  readonly storage: StorageType
  readonly layout: Exclude<RowLayout, 'shared'>
  /** Rows a head that targets have beyond W. */
  readonly spare: number
}

export interface KeepStream {
  readonly calls: readonly KeepArgs[]
}

const axes = {
  ...retainCase.axes,
  headDim: [2, 7, 16, 59],
  storage: storageTypes,
  layout: ['head-major', 'token-major'],
  spare: [0, 3],
} as const

export const keepCase: OpCase<KeepShape, KeepStream> = {
  axes,
  shapes: retainCase.shapes.flatMap((shape) =>
    axes.layout.map((layout, n) => {
      const storage = storageTypes[(shape.window + n) % storageTypes.length] as StorageType
      return { ...shape, name: `${shape.name}, ${layout}, ${storage}`, headDim: 13, layout, storage, spare: n }
    }),
  ),
  draw(random) {
    const [headDim, storage] = [pickFrom(random, axes.headDim), pickFrom(random, axes.storage)]
    return {
      ...{ ...retainCase.draw(random), headDim, storage },
      ...{ layout: pickFrom(random, axes.layout), spare: pickFrom(random, axes.spare) },
    }
  },
  create(shape, seed) {
    const { numKvHeads: K, headDim, storage, layout, spare, window } = shape
    const random = createRandom(seed)
    const capacity = window + spare
    // What no token was written to is never looked at.
    const [keys, values] = [0, 1].map(() => allocateRows(K * capacity, headDim, storage).fill(7))
    const common = { storage, layout, headDim, capacity }
    const calls = retainCase.create(shape, seed).calls.map((args) => {
      const source = () => normal(random, args.numTokens * K * headDim)
      const rotation = createRotation(random, args.numTokens, Math.floor(headDim / 2), false)
      const targets = [
        { ...common, source: source(), target: keys as Uint8Array, rotation },
        { ...common, source: source(), target: values as Uint8Array },
      ]
      return { ...args, targets }
    })
    return { calls }
  },
  run(kernels, { calls }) {
    const seen = { positions: [] as number[], keys: [] as number[], values: [] as number[] }
    for (const args of calls) {
      kernels.keep(args)
      readKept(args, seen)
    }
    return seen
  },
  reference: (args) => keepCase.run(reference, args),
  // As `store`: what is turned may fall to the other side of a rounding boundary.
  tolerance: ({ storage }) => ({ positions: 0, keys: storage === 'f32' ? 2e-6 : 0.6, values: 0 }),
  flops: () => 0,
  bytes: ({ numKvHeads, chunks, headDim, storage }) => {
    return 2 * numKvHeads * chunks.reduce((a, b) => a + b, 0) * (4 * headDim + rowBytes(headDim, storage))
  },
}

/** Which row a token takes is the backend's choice; that its rows hold what they should is not. */
function readKept({ kept, targets }: KeepArgs, seen: { positions: number[]; keys: number[]; values: number[] }): void {
  const { numKvHeads: K, window, lengths, positions } = kept
  for (let k = 0; k < K; k++) {
    const at = (row: number) => positions[k * window + row] as number
    const rows = Array.from({ length: lengths[k] as number }, (_, row) => row).sort((a, b) => at(a) - at(b))
    for (const row of rows) {
      seen.positions.push(at(row))
      for (const [n, { target, storage = 'f32', headDim, capacity, layout }] of targets.entries()) {
        const stored = layout === 'token-major' ? row * K + k : k * capacity + row
        for (const value of readRow(target, storage, stored, headDim)) (n === 0 ? seen.keys : seen.values).push(value)
      }
    }
  }
}
