/** Cases of `seek`: each storage type, groups of every width, rows that are passed over, more wanted than there are. */
import type { SeekArgs, StorageType } from '../contract.ts'
import { scoreOf } from '../reference-seek.ts'
import { allocateRows, rowBytes, storageTypes, writeRow } from '../storage.ts'
import { type OpCase, reference } from './case.ts'
import { createRandom, normal, pickFrom } from './random.ts'

export interface SeekShape {
  readonly name: string
  readonly numHeads: number
  readonly numKvHeads: number
  readonly headDim: number
  readonly numRows: number
  readonly capacity: number
  readonly most: number
  readonly storage: StorageType
  /** Few different rows, so that many tie. */
  readonly hasTies?: boolean
}

const axes = {
  group: [1, 2, 3, 4, 5, 8, 11],
  numKvHeads: [1, 2, 3],
  headDim: [1, 7, 16, 32, 37, 64, 130],
  numRows: [0, 1, 5, 63, 64, 65, 129, 1025],
  spare: [0, 1, 9],
  most: [1, 2, 3, 17, 64, 2000],
  storage: storageTypes,
} as const

const usual = { numHeads: 8, numKvHeads: 2, headDim: 64, numRows: 200, capacity: 210, most: 3 } as const

export const seekCase: OpCase<SeekShape, SeekArgs> = {
  axes,
  shapes: storageTypes.flatMap((storage) => [
    ...axes.headDim.map((headDim) => ({ ...usual, name: `${storage}, dim ${headDim}`, headDim, storage })),
    ...axes.group.map((group) => ({ ...usual, name: `${storage}, groups of ${group}`, numHeads: 2 * group, storage })),
    ...[0, 1, 63, 64, 65, 129].map((numRows) => ({
      ...{ ...usual, name: `${storage}, ${numRows} rows`, headDim: 16, numRows, capacity: numRows + 3, most: 17 },
      storage,
    })),
    { ...usual, name: `${storage}, all rows`, headDim: 16, numRows: 1100, capacity: 1100, most: 2000, storage },
    { ...usual, name: `${storage}, ties`, numRows: 1100, capacity: 1100, most: 40, storage, hasTies: true },
  ]),
  draw(random) {
    const [numKvHeads, numRows] = [pickFrom(random, axes.numKvHeads), pickFrom(random, axes.numRows)]
    return {
      ...{ name: 'drawn', numHeads: numKvHeads * pickFrom(random, axes.group), numKvHeads, numRows },
      ...{ headDim: pickFrom(random, axes.headDim), capacity: numRows + pickFrom(random, axes.spare) },
      ...{ most: pickFrom(random, axes.most), storage: pickFrom(random, axes.storage) },
    }
  },
  create({ numHeads, numKvHeads, headDim, numRows, capacity, most, storage, hasTies = false }, seed) {
    const random = createRandom(seed)
    const query = normal(random, numHeads * headDim)
    const bounds = allocateRows(numKvHeads * capacity, 2 * headDim, storage)
    const few = Array.from({ length: 9 }, () => normal(random, 2 * headDim))
    for (let row = 0; row < numKvHeads * capacity; row++) {
      const numbers = hasTies ? pickFrom(random, few) : normal(random, 2 * headDim)
      writeRow(bounds, storage, row, row % capacity < numRows ? numbers : numbers.map(() => Number.NaN))
    }
    const bias = normal(random, numKvHeads * capacity).map((value, i) => {
      if (i % capacity >= numRows) return Number.NaN
      return random() < 0.1 ? Number.NEGATIVE_INFINITY : hasTies ? 0 : value
    })
    return {
      ...{ query, bounds, storage, bias, numHeads, numKvHeads, headDim, scale: 1 / Math.sqrt(headDim) },
      ...{ capacity, numRows, most, rows: new Int32Array(numKvHeads * most).fill(-1) },
      lengths: new Int32Array(numKvHeads).fill(-1),
    }
  },
  run(kernels, args) {
    kernels.seek(args)
    const { rows, lengths, numKvHeads, most } = args
    const chosen = Array.from({ length: numKvHeads }, (_, k) =>
      rows.subarray(k * most, k * most + (lengths[k] as number)),
    )
    const scores = chosen.flatMap((of, k) => Array.from(of, (row) => scoreOf(args, k, row)).sort((a, b) => b - a))
    const steps = chosen.flatMap((of) => Array.from(of.subarray(1), (row, n) => (row > (of[n] as number) ? 1 : 0)))
    return { lengths: lengths.slice(0, numKvHeads), scores, steps }
  },
  reference: (args) => seekCase.run(reference, args),
  // Rows whose scores are as good as equal may stand for each other.
  tolerance: () => ({ lengths: 0, scores: 2e-5, steps: 0 }),
  flops: ({ numHeads, headDim, numRows }) => 4 * numHeads * headDim * numRows,
  bytes: ({ numHeads, numKvHeads, headDim, numRows, most, storage }) => {
    return 4 * numHeads * headDim + numKvHeads * (numRows * (rowBytes(2 * headDim, storage) + 4) + 4 * most + 4)
  },
}
