/** Storing, rotating, choosing and keeping rows: every backend against the reference. */
import { describe, expect, test } from 'vitest'
import { reference } from './cases/case.ts'
import { type KeepShape, keepCase } from './cases/keep.ts'
import { createKept, retainArgs, retainCase } from './cases/retain.ts'
import { rotateCase } from './cases/rotate.ts'
import { type SeekShape, seekCase } from './cases/seek.ts'
import { selectCase } from './cases/select.ts'
import { storeCase } from './cases/store.ts'
import { turnCase } from './cases/turn.ts'
import type { KeepArgs, KeptSet, RowTarget, SeekArgs } from './contract.ts'
import { candidates } from './testing/candidates.ts'
import { expectConformance } from './testing/conformance.ts'

describe.each(candidates)('$name', ({ open }) => {
  const kernels = open()

  test.each(storeCase.shapes)('stores rows: $name', (shape) => expectConformance(storeCase, kernels, shape))

  test.each(turnCase.shapes)('turns rows anew: $name', (shape) => expectConformance(turnCase, kernels, shape))

  test.each(rotateCase.shapes)('rotates heads: $name', (shape) => expectConformance(rotateCase, kernels, shape))

  test('selects the best rows by (score, row), whatever the ties', () => {
    for (const shape of selectCase.shapes) expectConformance(selectCase, kernels, shape)
  })

  test.each(seekCase.shapes)('seeks the highest bounds: $name', (shape) => {
    expectConformance(seekCase, kernels, shape)
  })

  test.each(seekCase.shapes.filter(({ hasTies }) => hasTies))('the later of equal rows wins: $name', (shape) => {
    const [args, expected] = [seekCase.create(shape, 1), seekCase.create(shape, 1)]
    kernels.seek(args)
    reference.seek(expected)
    expect([args.rows, args.lengths]).toEqual([expected.rows, expected.lengths])
  })

  test('seeking in what does not fit is refused', () => {
    const bad: Partial<SeekArgs>[] = [
      ...[{ query: new Float32Array(3) }, { bounds: new Uint8Array(3) }, { bounds: new Float32Array(999_999) }],
      ...[{ bias: new Float32Array(3) }, { rows: new Int32Array(3) }, { lengths: new Int32Array(0) }, { most: 0 }],
      ...[{ numRows: 99_999 }, { numHeads: 3 }, { scale: Number.POSITIVE_INFINITY }],
    ]
    const shape = seekCase.shapes.find(({ storage }) => storage === 'int8') as SeekShape
    for (const change of bad) {
      const args = { ...seekCase.create(shape, 1), ...change }
      expect(() => kernels.seek(args)).toThrow(/\[kvasir:kernels\]/)
    }
  })

  test.each(retainCase.shapes)(
    'retains what the reference retains (W, sinks, recent: $name), chunk after chunk',
    (shape) => expectConformance(retainCase, kernels, shape),
  )

  test.each(keepCase.shapes)('stores what it retains (W, sinks, recent: $name)', (shape) => {
    expectConformance(keepCase, kernels, shape)
  })

  test('targets that do not fit are refused, and nothing is changed', () => {
    const [args] = keepCase.create({ ...(keepCase.shapes[1] as KeepShape), chunks: [3] }, 1).calls as [KeepArgs]
    const before = structuredClone(args.kept)
    const [keys] = args.targets as [RowTarget]
    const bad: Partial<RowTarget>[] = [
      { source: new Float32Array(1) },
      { target: new Float32Array(1), storage: 'f32' },
      { target: new Float64Array(9999) as unknown as Float32Array },
      { capacity: args.kept.window - 1 },
      { headDim: 0 },
    ]
    for (const change of bad) {
      expect(() => kernels.keep({ ...args, targets: [keys, { ...keys, ...change }] })).toThrow(/\[kvasir:kernels\]/)
    }
    expect(() => kernels.keep({ ...args, targets: [keys, keys, keys, keys] })).toThrow(/\[kvasir:kernels\]/)
    expect(args.kept).toEqual(before)
  })

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
