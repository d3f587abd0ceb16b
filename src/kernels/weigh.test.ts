/** Attention mass of every backend against the reference. */
import { describe, expect, test } from 'vitest'
import { weighCase } from './cases/weigh.ts'
import type { AttendShape } from './cases.ts'
import type { WeighArgs } from './contract.ts'
import { candidates } from './testing/candidates.ts'
import { expectConformance } from './testing/conformance.ts'

const long = weighCase.shapes.find(({ name }) => name === 'tasks') as AttendShape

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

  test('arguments that do not fit are refused', () => {
    const good = weighCase.create(long, 1)
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
