/** Attention of every backend against the reference. */
import { describe, expect, test } from 'vitest'
import { f16ToF32, f32ToF16 } from '../tensor/float16.ts'
import { attendCase } from './cases/attend.ts'
import { largestDifference } from './cases/case.ts'
import { createAttendCase, createRandom } from './cases.ts'
import type { AttendArgs, KeyValueSegment, StorageArray } from './contract.ts'
import { openReference } from './reference.ts'
import { storageCodecs, storageOf } from './storage.ts'
import { candidates } from './testing/candidates.ts'
import { expectConformance } from './testing/conformance.ts'

const reference = openReference()

test('at least one compiled backend is held to the reference', () => expect(candidates.length).toBeGreaterThan(0))

/** The output as f32. */
function numbersOf({ output, queryStorage }: AttendArgs): Float32Array {
  return Float32Array.from(
    output,
    storageCodecs[output instanceof Float32Array ? 'f32' : storageOf(output, queryStorage)].read,
  )
}

/** Its rows divided among up to four segments at random, empty ones too. */
function splitSegment({ segments, numKvHeads: K }: AttendArgs, random: () => number): KeyValueSegment[] {
  const [segment] = segments
  if (!segment) return []
  const { capacity, lengths, bias } = segment
  const cuts = [0, ...[random(), random(), random()].map((at) => Math.floor(at * (capacity + 1))).sort((a, b) => a - b)]
  return cuts.map((start, n) => {
    const end = cuts[n + 1] ?? capacity
    const part = <A extends StorageArray>(array: A): A => {
      const width = array.length / (K * capacity)
      const heads = Array.from({ length: K }, (_, k) =>
        array.subarray((k * capacity + start) * width, (k * capacity + end) * width),
      )
      return Float32Array.from(heads.flatMap((head) => Array.from(head))) as A
    }
    return {
      ...{ keys: part(segment.keys), values: part(segment.values), bias: bias && part(bias), capacity: end - start },
      lengths: lengths.map((length) => Math.min(Math.max(length - start, 0), end - start)),
    }
  })
}

describe.each(candidates)('$name', ({ open }) => {
  const kernels = open()

  test.each(attendCase.shapes)('attends as the reference does: $name', (shape) => {
    expectConformance(attendCase, kernels, shape, attendCase.flops(shape) < 4e6 ? [1, 2] : [1])
  })

  test('the same rows in any number of segments', () => {
    const random = createRandom(8)
    for (const numTokens of [1, 3, 40]) {
      const shape = {
        name: '',
        numTokens,
        numHeads: 6,
        numKvHeads: 2,
        headDim: 59,
        segments: [301],
        bias: 'random',
      } as const
      const whole = createAttendCase(shape, 4)
      kernels.attend(whole)
      for (let round = 0; round < 5; round++) {
        const parts = { ...whole, output: new Float32Array(whole.output.length), segments: splitSegment(whole, random) }
        kernels.attend(parts)
        expect(largestDifference(parts.output, whole.output)).toBeLessThanOrEqual(2e-6)
      }
    }
  })

  test('exponentials are right over their whole range', () => {
    // Two rows with logits 0 and x make the log-sum-exp log(1 + e^x) and the weight of the second row e^x / (1 + e^x).
    for (let x = -90; x <= 0; x += 0.173) {
      const args: AttendArgs = {
        ...{ query: Float32Array.of(1), output: new Float32Array(1), lse: new Float32Array(1) },
        ...{ numTokens: 1, numHeads: 1, numKvHeads: 1, headDim: 1, valueDim: 1, scale: 1, firstPosition: 0 },
        segments: [
          { keys: Float32Array.of(0, x), values: Float32Array.of(0, 1), capacity: 2, lengths: Int32Array.of(2) },
        ],
      }
      kernels.attend(args)
      const rounded = Math.exp(Math.fround(x))
      const expected = rounded / (1 + rounded)
      const flushed = x < -87.3
      expect(Math.abs((args.output[0] as number) - (flushed ? 0 : expected))).toBeLessThanOrEqual(4e-7 * expected)
    }
  })

  test('widens every f16 as the reference does', () => {
    const halves = Uint16Array.from({ length: 65536 }, (_, i) => i).filter((half) => (half & 0x7c00) !== 0x7c00)
    expect(halves.map((bits) => f32ToF16(f16ToF32(bits)))).toEqual(halves)
    const lengths = Int32Array.of(1)
    for (let start = 0; start < halves.length; start += 512) {
      const values = halves.subarray(start, start + 512)
      const args: AttendArgs = {
        ...{ query: Float32Array.of(0), output: new Float32Array(values.length), firstPosition: 0, scale: 1 },
        ...{ numTokens: 1, numHeads: 1, numKvHeads: 1, headDim: 1, valueDim: values.length },
        segments: [{ keys: Uint16Array.of(0), values, capacity: 1, lengths }],
      }
      kernels.attend(args)
      expect(Array.from(args.output)).toEqual(Array.from(values, (half) => f16ToF32(half) + 0))
    }
  })

  /** Causal attention of 12 tokens over 12 rows, changed by `change`; the rows of the result that hold a NaN. */
  const rowsWithNaN = (change: (args: AttendArgs) => void): number[] => {
    const shape = { name: '', numTokens: 12, numHeads: 2, numKvHeads: 1, headDim: 16, segments: [12] } as const
    const args = createAttendCase({ ...shape, visibility: 'causal' }, 5)
    change(args)
    kernels.attend(args)
    const exact = { ...args, output: new Float32Array(args.output.length) }
    reference.attend(exact)
    const holds = ({ output }: AttendArgs) => {
      const rows = Array.from({ length: 24 }, (_, row) => row)
      return rows.filter((row) => Array.from(output.subarray(row * 16, (row + 1) * 16)).some(Number.isNaN))
    }
    expect(holds(args)).toEqual(holds(exact))
    return holds(args)
  }

  test('NaN and infinity reach those who see them and nobody else', () => {
    expect(rowsWithNaN(({ query }) => query.fill(Number.NaN, 16, 32))).toEqual([1])
    const keyOf7 = rowsWithNaN(({ segments }) => segments[0]?.keys.fill(Number.NaN, 7 * 16, 8 * 16))
    expect(keyOf7).toEqual([14, 15, 16, 17, 18, 19, 20, 21, 22, 23])
    expect(rowsWithNaN(({ segments }) => segments[0]?.values.fill(Number.NaN, 7 * 16, 8 * 16))).toEqual(keyOf7)
    expect(rowsWithNaN(({ segments }) => segments[0]?.values.fill(Infinity, 7 * 16, 8 * 16))).toEqual([])
  })

  test('one query that is NaN, over one row and over many splits', () => {
    for (const rows of [1, 5, 3000]) {
      const args = createAttendCase(
        { name: '', numTokens: 1, numHeads: 4, numKvHeads: 1, headDim: 16, segments: [rows] },
        1,
      )
      args.query.fill(Number.NaN, 0, 16)
      kernels.attend(args)
      expect(args.output.subarray(0, 16).every(Number.isNaN)).toBe(true)
      expect(args.lse?.[0]).toBeNaN()
      expect(args.output.subarray(16).some(Number.isNaN)).toBe(false)
    }
  })

  test('rows that all carry the lowest finite bias are attended to evenly', () => {
    for (const numTokens of [1, 20]) {
      const shape = {
        name: '',
        numTokens,
        numHeads: 2,
        numKvHeads: 2,
        headDim: 16,
        segments: [9],
        bias: 'random',
      } as const
      const [expected, actual] = [createAttendCase(shape, 3), createAttendCase(shape, 3)]
      for (const args of [expected, actual]) args.segments[0]?.bias?.fill(-3.4028234663852886e38)
      reference.attend(expected)
      kernels.attend(actual)
      expect(largestDifference(numbersOf(actual), numbersOf(expected))).toBeLessThanOrEqual(1e-5)
    }
  })

  test('arguments that do not fit their sizes are refused', () => {
    const good = () =>
      createAttendCase({ name: '', numTokens: 1, numHeads: 4, numKvHeads: 2, headDim: 16, segments: [9] }, 1)
    const segment = good().segments[0] as KeyValueSegment
    const bad: Partial<AttendArgs>[] = [
      { query: new Float32Array(63) },
      { output: new Float32Array(1) },
      { lse: new Float32Array(3) },
      { query: new Float64Array(64) as never },
      { numTokens: -1 },
      { numTokens: 1.5 },
      { numHeads: 3 },
      { headDim: 0 },
      { headDim: Number.NaN },
      { firstPosition: 2 ** 31 },
      { segments: [{ ...segment, lengths: Int32Array.of(9, 15) }] },
      { segments: [{ ...segment, lengths: Int32Array.of(9, -1) }] },
      { segments: [{ ...segment, keys: new Float32Array(9) }] },
      { segments: [{ ...segment, keys: new Uint16Array(2 * 14 * 16) }] },
      { segments: [{ ...segment, bias: new Float32Array(3) }] },
      { segments: [{ ...segment, bias: new Float32Array(0) }] },
      { segments: [{ ...segment, deaths: new Int32Array(0) }] },
      { segments: [{ ...segment, lengths: new Uint8Array(2) as never }] },
      { segments: [{ ...segment, rows: new Int32Array(28).fill(14) }] },
      { segments: [segment, { ...segment, keyStorage: 'f16' }] },
      { segments: [{ ...segment, valueStorage: 'int8' }] },
      { segments: [{ ...segment, keys: new Uint8Array(22 * 16), keyStorage: 'int8' }] },
      { segments: [{ ...segment, storage: 'int9' as never, keyStorage: undefined }] },
      { queryStorage: 'int8' as never },
      { rotation: { rotaryPairs: 4 } as never },
    ]
    kernels.attend(good())
    for (const change of bad) expect(() => kernels.attend({ ...good(), ...change })).toThrow(/\[kvasir:kernels\]/)
  })
})
