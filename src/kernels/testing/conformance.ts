/** Holds a backend to a case. */
import { expect } from 'vitest'
import { findDifferences, judge, type OpCase, type Verdict } from '../cases/case.ts'
import type { Kernels } from '../contract.ts'

/** By op, shape and seed: the same for all backends. */
const known = new Map<object, Map<string, unknown>>()

export function expectConformance<Shape extends { readonly name: string }, Args>(
  op: OpCase<Shape, Args>,
  kernels: Kernels,
  shape: Shape,
  seeds: readonly number[] = [1, 2],
): void {
  const ofOp = known.get(op) ?? new Map<string, unknown>()
  known.set(op, ofOp)
  for (const seed of seeds) {
    const key = `${JSON.stringify(shape)} ${seed}`
    const verdict = (ofOp.get(key) as Verdict<Args> | undefined) ?? judge(op, shape, seed)
    ofOp.set(key, verdict)
    expect(findDifferences(verdict, op.run(kernels, structuredClone(verdict.inputs)))).toEqual([])
  }
}
