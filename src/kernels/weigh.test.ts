/** Attention mass of every backend against the reference. */
import { describe, expect, test } from 'vitest'
import { weighCase } from './cases/weigh.ts'
import type { AttendShape } from './cases.ts'
import type { Kernels, WeighArgs } from './contract.ts'
import { openReference } from './reference.ts'
import { candidates } from './testing/candidates.ts'
import { expectConformance } from './testing/conformance.ts'

const long = weighCase.shapes.find(({ name }) => name === 'tasks') as AttendShape

const reference = openReference()

describe.each(candidates)('$name', ({ open }) => {
  const kernels = open()

  test.each(weighCase.shapes)('adds what the reference adds: $name', (shape) => {
    expectConformance(weighCase, kernels, shape, [1])
  })

  test('the masses of a KV head add up to its queries', () => {
    const args = { ...weighCase.create(long, 1), firstToken: 0 }
    for (const mass of args.masses) mass.fill(0)
    kernels.weigh(args)
    const total = args.masses.reduce((sum, mass) => sum + mass.reduce((a, b) => a + b, 0), 0)
    expect(Math.abs(total - 3 * 4)).toBeLessThanOrEqual(1e-3)
  })

  const ofOneSegment = weighCase.shapes.filter((shape) => shape.segments.length === 1 && weighCase.flops(shape) < 2e5)
  const inputs = (shape: AttendShape) => weighCase.create(shape, 1)

  test.each(ofOneSegment)('logits that attention leaves, and masses from them: $name', (shape) => {
    const kept = (own: Kernels) => {
      const args = inputs(shape)
      const logits = new Float32Array(args.numTokens * args.numHeads * (args.segments[0]?.capacity ?? 0)).fill(7)
      own.attend({ ...args, logits })
      own.weigh({ ...args, logits })
      return { ...args, logits }
    }
    const [ours, exact] = [kept(kernels), kept(reference)]
    expect(largestDistance(ours.logits, exact.logits)).toBeLessThanOrEqual(4e-5 * (shape.queryScale ?? 1))
    const tolerance = 2 * (weighCase.tolerance(shape, inputs(shape), {})['masses 0'] as number)
    expect(largestDistance(ours.masses[0] ?? [], exact.masses[0] ?? [])).toBeLessThanOrEqual(tolerance)
  })

  test('arguments that do not fit are refused', () => {
    const good = weighCase.create(long, 1)
    const bad: Partial<WeighArgs>[] = [
      { lse: undefined },
      { lse: new Float32Array(3) },
      { masses: [] },
      { masses: [new Float32Array(2), new Float32Array(2)] },
      { firstToken: -1 },
      { query: new Float32Array(1) },
      { logits: new Float32Array(1) },
    ]
    for (const change of bad) expect(() => kernels.weigh({ ...good, ...change })).toThrow(/\[kvasir:kernels\]/)
  })
})

/** Infinite where one number is infinite or NaN and the other is not the same. */
function largestDistance(ours: ArrayLike<number>, theirs: ArrayLike<number>): number {
  let largest = ours.length === theirs.length ? 0 : Number.POSITIVE_INFINITY
  for (let i = 0; i < theirs.length; i++) {
    const [one, other] = [ours[i] as number, theirs[i] as number]
    if (Object.is(one, other)) continue
    const distance = Math.abs(one - other)
    largest = distance <= largest ? largest : Number.isNaN(distance) ? Number.POSITIVE_INFINITY : distance
  }
  return largest
}
