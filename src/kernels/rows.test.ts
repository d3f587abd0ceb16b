/** Storing, rotating, choosing and keeping rows: every backend against the reference. */
import { describe, expect, test } from 'vitest'
import { createKept, retainArgs, retainCase } from './cases/retain.ts'
import { rotateCase } from './cases/rotate.ts'
import { selectCase } from './cases/select.ts'
import { storeCase } from './cases/store.ts'
import type { KeptSet } from './contract.ts'
import { candidates } from './testing/candidates.ts'
import { expectConformance } from './testing/conformance.ts'

describe.each(candidates)('$name', ({ open }) => {
  const kernels = open()

  test.each(storeCase.shapes)('stores rows: $name', (shape) => expectConformance(storeCase, kernels, shape))

  test.each(rotateCase.shapes)('rotates heads: $name', (shape) => expectConformance(rotateCase, kernels, shape))

  test('selects the best rows by (score, row), whatever the ties', () => {
    for (const shape of selectCase.shapes) expectConformance(selectCase, kernels, shape)
  })

  test.each(retainCase.shapes)(
    'retains what the reference retains (W, sinks, recent: $name), chunk after chunk',
    (shape) => expectConformance(retainCase, kernels, shape),
  )

  test('a kept set that makes no sense is refused', () => {
    for (const spoil of [
      (kept: KeptSet) => kept.accepted.fill(1e300),
      (kept: KeptSet) => kept.accepted.fill(Number.NaN),
      (kept: KeptSet) => kept.lengths.fill(99),
      (kept: KeptSet) => kept.lengths.fill(-1),
      (kept: KeptSet) => kept.heapLengths.fill(9),
    ]) {
      const kept = createKept(2, 8, 1, 3)
      spoil(kept)
      expect(() => kernels.retain(retainArgs(kept, Float32Array.of(1, 2), 1, 0))).toThrow(/corrupt/)
    }
  })

  test('a NaN score is refused and changes nothing', () => {
    const kept = createKept(2, 4, 0, 0)
    kernels.retain(retainArgs(kept, Float32Array.of(1, 2, 3, 4), 2, 0))
    const before = structuredClone(kept)
    expect(() => kernels.retain(retainArgs(kept, Float32Array.of(5, 6, 7, Number.NaN), 2, 2))).toThrow(/NaN/)
    expect(kept).toEqual(before)
  })
})
