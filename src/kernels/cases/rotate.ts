/** Cases of `rotate`: whole heads and parts of them, both orders of pairs, forward and back. */
import type { RotateArgs, Rotation } from '../contract.ts'
import { type OpCase, reference } from './case.ts'
import { createRandom, normal, pickFrom } from './random.ts'

export interface RotateShape {
  readonly name: string
  readonly numTokens: number
  readonly numHeads: number
  readonly headDim: number
  readonly rotaryPairs: number
  readonly isInterleaved?: boolean
  readonly isInverse?: boolean
}

const axes = {
  numTokens: [0, 1, 2, 3, 17],
  numHeads: [1, 2, 3, 8],
  headDim: [1, 2, 7, 8, 13, 59, 64, 66, 111, 128, 192],
  part: [0, 0.25, 0.5, 1],
  isInterleaved: [false, true],
  isInverse: [false, true],
} as const

const sizes = { numTokens: 3, numHeads: 2 } as const

export const rotateCase: OpCase<RotateShape, RotateArgs> = {
  axes,
  shapes: [
    { ...sizes, name: 'whole', headDim: 8, rotaryPairs: 4 },
    { ...sizes, name: 'half', headDim: 8, rotaryPairs: 2 },
    { ...sizes, name: 'odd pairs', headDim: 66, rotaryPairs: 33 },
    { ...sizes, name: '128', headDim: 128, rotaryPairs: 64 },
    { ...sizes, name: '128, back', headDim: 128, rotaryPairs: 64, isInverse: true },
    { ...sizes, name: 'odd dim', headDim: 111, rotaryPairs: 55 },
    { ...sizes, name: 'interleaved', headDim: 66, rotaryPairs: 33, isInterleaved: true },
    { ...sizes, name: 'interleaved part, back', headDim: 13, rotaryPairs: 5, isInterleaved: true, isInverse: true },
    { ...sizes, name: 'no pairs', headDim: 16, rotaryPairs: 0 },
    { name: 'no tokens', numTokens: 0, numHeads: 2, headDim: 8, rotaryPairs: 4 },
    { name: 'prime tokens', numTokens: 17, numHeads: 3, headDim: 59, rotaryPairs: 29 },
  ],
  draw(random) {
    const headDim = pickFrom(random, axes.headDim)
    const [isInterleaved, isInverse] = [pickFrom(random, axes.isInterleaved), pickFrom(random, axes.isInverse)]
    const rotaryPairs = Math.floor((headDim / 2) * pickFrom(random, axes.part))
    const [numTokens, numHeads] = [pickFrom(random, axes.numTokens), pickFrom(random, axes.numHeads)]
    return { name: 'drawn', numTokens, numHeads, headDim, rotaryPairs, isInterleaved, isInverse }
  },
  create({ numTokens, numHeads, headDim, rotaryPairs, isInterleaved, isInverse }, seed) {
    const random = createRandom(seed)
    return {
      ...{ vectors: normal(random, numTokens * numHeads * headDim), numTokens, numHeads, headDim, isInverse },
      ...createRotation(random, numTokens, rotaryPairs, isInterleaved),
    }
  },
  run(kernels, args) {
    kernels.rotate(args)
    return { vectors: args.vectors }
  },
  reference: (args) => rotateCase.run(reference, args),
  // Two products and a sum of numbers below 6, rounded once or twice.
  tolerance: () => ({ vectors: 1e-6 }),
  flops: ({ numTokens, numHeads, rotaryPairs }) => 6 * numTokens * numHeads * rotaryPairs,
  bytes: ({ numTokens, numHeads, rotaryPairs }) => 4 * numTokens * rotaryPairs * (4 * numHeads + 2),
}

/** Angles of a few turns. */
export function createRotation(
  random: () => number,
  numTokens: number,
  rotaryPairs: number,
  isInterleaved = false,
): Rotation {
  const angles = normal(random, numTokens * rotaryPairs, 3)
  return { cos: angles.map(Math.cos), sin: angles.map(Math.sin), rotaryPairs, isInterleaved }
}
