/** Cases of `weigh`: those of `attend` after they have run, with masses that hold something already. */
import type { WeighArgs } from '../contract.ts'
import { attendCase } from './attend.ts'
import { type AttendShape, createAttendCase } from './attend-inputs.ts'
import { attendShapes } from './attend-shapes.ts'
import { type OpCase, reference } from './case.ts'

/** More than one task a head. */
const long: AttendShape = { name: 'tasks', numTokens: 3, numHeads: 4, numKvHeads: 2, headDim: 16, segments: [1400, 90] }

export const weighCase: OpCase<AttendShape, WeighArgs> = {
  axes: attendCase.axes,
  // The largest cases differ from others by their size alone.
  shapes: [...attendShapes, long].filter((shape) => attendCase.flops(shape) < 3e6),
  draw: (random) => attendCase.draw(random),
  create(shape, seed) {
    const args = createAttendCase(shape, seed)
    reference.attend({ ...args, output: new Float32Array(args.output.length) })
    const masses = args.segments.map(({ capacity }) => new Float32Array(args.numKvHeads * capacity).fill(0.5))
    return { ...args, masses, firstToken: args.numTokens > 1 ? 1 : 0 }
  },
  run(kernels, args) {
    kernels.weigh(args)
    return Object.fromEntries(args.masses.map((mass, s) => [`masses ${s}`, mass]))
  },
  reference: (args) => weighCase.run(reference, args),
  // A mass is a sum of weights of up to 1, each with the error of its logit.
  tolerance({ numTokens, numHeads, numKvHeads, queryScale = 1, segments }) {
    const allowed = 2e-6 * queryScale * (1 + numTokens * (numHeads / numKvHeads))
    return Object.fromEntries(segments.map((_, s) => [`masses ${s}`, allowed]))
  },
  flops: (shape) => 2 * shape.numTokens * shape.numHeads * shape.segments.reduce((a, b) => a + b, 0) * shape.headDim,
  // As attention that has no values to read, and each mass read and written.
  bytes: (shape) =>
    attendCase.bytes({ ...shape, valueDim: 0 }) +
    4 * shape.numTokens * shape.numHeads +
    8 * shape.numKvHeads * shape.segments.reduce((a, b) => a + b, 0),
}
