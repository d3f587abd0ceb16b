/** Cases of `select`: many ties, rows of -Infinity, windows below and above the number of rows. */
import type { SelectArgs } from '../contract.ts'
import { type OpCase, reference } from './case.ts'
import { createRandom, pickFrom } from './random.ts'

export interface SelectShape {
  readonly name: string
  readonly numKvHeads: number
  readonly capacity: number
  readonly numRows: number
  readonly window: number
  /** How many different scores there are: few make ties. */
  readonly numScores?: number
}

const axes = {
  numKvHeads: [1, 2, 5],
  numRows: [0, 1, 5, 64, 257, 1025],
  spare: [0, 1, 43],
  window: [1, 3, 64, 1000],
  numScores: [1, 2, 9, 100_000],
} as const

export const selectCase: OpCase<SelectShape, SelectArgs> = {
  axes,
  shapes: axes.numRows.flatMap((numRows) =>
    axes.window.map((window) => ({
      ...{ name: `${window} of ${numRows}`, numKvHeads: 2, capacity: numRows + 43, numRows, window },
    })),
  ),
  draw(random) {
    const [numKvHeads, numRows] = [pickFrom(random, axes.numKvHeads), pickFrom(random, axes.numRows)]
    const [window, numScores] = [pickFrom(random, axes.window), pickFrom(random, axes.numScores)]
    return { name: 'drawn', numKvHeads, numRows, capacity: numRows + pickFrom(random, axes.spare), window, numScores }
  },
  create({ numKvHeads, capacity, numRows, window, numScores = 9 }, seed) {
    const random = createRandom(seed)
    const scores = Float32Array.from({ length: numKvHeads * capacity }, (_, i) => {
      if (i % capacity >= numRows) return Number.NaN
      const score = Math.floor(random() * numScores) - 4
      return score === 4 ? Number.NEGATIVE_INFINITY : score * 0.5
    })
    return {
      ...{ scores, numKvHeads, capacity, numRows, window },
      ...{ rows: new Int32Array(numKvHeads * capacity), lengths: new Int32Array(numKvHeads).fill(-1) },
    }
  },
  run(kernels, args) {
    kernels.select(args)
    const { rows, lengths, capacity } = args
    const chosen = Array.from(lengths, (length, k) => Array.from(rows.subarray(k * capacity, k * capacity + length)))
    return { lengths, rows: chosen.flat() }
  },
  reference: (args) => selectCase.run(reference, args),
  tolerance: () => ({ lengths: 0, rows: 0 }),
  flops: () => 0,
  bytes: ({ numKvHeads, numRows, window }) => 4 * numKvHeads * (numRows + Math.min(numRows, window) + 1),
}
