/** Attention mass of every backend against the reference. */
import { describe, expect, test } from 'vitest'
import { type AttendShape, attendShapes, createAttendCase } from './cases.ts'
import type { WeighArgs } from './contract.ts'
import { openReference } from './reference.ts'
import { candidates, worst } from './testing/candidates.ts'

const reference = openReference()

/** A case with the lse of its attend and masses that hold something already. */
function createWeighCase(shape: AttendShape): WeighArgs {
  const args = createAttendCase(shape, 1)
  args.lse?.set(judge(shape).lse)
  const masses = args.segments.map(({ capacity }) => new Float32Array(args.numKvHeads * capacity).fill(0.5))
  return { ...args, masses, firstToken: args.numTokens > 1 ? 1 : 0 }
}

/** What the reference says; worked out once for all backends. */
function judge(shape: AttendShape): { lse: Float32Array; masses: readonly Float32Array[] } {
  const known = verdicts.get(shape)
  if (known) return known
  const args = createAttendCase(shape, 1)
  reference.attend(args)
  const verdict = { lse: args.lse as Float32Array, masses: [] as readonly Float32Array[] }
  verdicts.set(shape, verdict)
  const weighed = createWeighCase(shape)
  reference.weigh(weighed)
  verdict.masses = weighed.masses
  return verdict
}

const verdicts = new Map<AttendShape, { lse: Float32Array; masses: readonly Float32Array[] }>()

/** More than one task a head. */
const long: AttendShape = { name: 'tasks', numTokens: 3, numHeads: 4, numKvHeads: 2, headDim: 16, segments: [1400, 90] }

/** The reference takes seconds over the largest cases, which differ from others by their size alone. */
const shapes = [...attendShapes, long].filter(({ numTokens, numHeads, headDim, segments }) => {
  return numTokens * numHeads * headDim * segments.reduce((a, b) => a + b, 0) < 2e6
})

describe.each(candidates)('$name', ({ open }) => {
  const kernels = open()

  test.each(shapes)('adds what the reference adds: $name', (shape) => {
    const { masses } = judge(shape)
    const actual = createWeighCase(shape)
    kernels.weigh(actual)
    // A mass is a sum of weights of up to 1, each with the error of its logit.
    const allowed = 2e-6 * (shape.queryScale ?? 1) * (1 + shape.numTokens * (shape.numHeads / shape.numKvHeads))
    for (const [s, mass] of actual.masses.entries()) {
      expect(worst(mass, masses[s] as Float32Array)).toBeLessThanOrEqual(allowed)
    }
  })

  test('the masses of a KV head add up to its queries', () => {
    const args = { ...createWeighCase(long), firstToken: 0 }
    for (const mass of args.masses) mass.fill(0)
    kernels.weigh(args)
    const total = args.masses.reduce((sum, mass) => sum + mass.reduce((a, b) => a + b, 0), 0)
    expect(Math.abs(total - 3 * 4)).toBeLessThanOrEqual(1e-3)
  })

  test('arguments that do not fit are refused', () => {
    const good = createWeighCase(long)
    const bad: Partial<WeighArgs>[] = [
      { lse: undefined },
      { lse: new Float32Array(3) },
      { masses: [] },
      { masses: [new Float32Array(2), new Float32Array(2)] },
      { firstToken: -1 },
      { query: new Float32Array(1) },
    ]
    for (const change of bad) expect(() => kernels.weigh({ ...good, ...change })).toThrow(/\[kvasir:kernels\]/)
  })
})
