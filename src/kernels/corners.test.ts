/** Corners of attention that once went wrong, on every backend. */
import { describe, expect, test } from 'vitest'
import { f32ToBf16 } from '../tensor/bfloat16.ts'
import { f32ToF16 } from '../tensor/float16.ts'
import { createRandom, normal } from './cases.ts'
import type { AttendArgs, KeyValueSegment } from './contract.ts'
import { openReference } from './reference.ts'
import { rowBytes } from './storage.ts'
import { candidates } from './testing/candidates.ts'

const reference = openReference()

/** Largest difference; NaN anywhere counts as infinite. */
function worst(actual: Float32Array, expected: Float32Array): number {
  const differences = actual.map((value, i) => Math.abs(value - (expected[i] as number)))
  return differences.some(Number.isNaN) ? Infinity : Math.max(...differences)
}

function expectReference(args: AttendArgs, attend: (args: AttendArgs) => void, tolerance: number): void {
  const exact = { ...args, output: new Float32Array(args.output.length), lse: undefined }
  reference.attend(exact)
  attend(args)
  expect(worst(args.output as Float32Array, exact.output)).toBeLessThanOrEqual(tolerance)
}

function problem(
  sizes: { T: number; H?: number; K?: number; D: number },
  segments: readonly KeyValueSegment[],
  query?: Float32Array,
): AttendArgs {
  const { T, H = 1, K = 1, D } = sizes
  return {
    query: query ?? normal(createRandom(1), T * H * D),
    output: new Float32Array(T * H * D),
    ...{ numTokens: T, numHeads: H, numKvHeads: K, headDim: D, valueDim: D, scale: 1 / Math.sqrt(D) },
    firstPosition: 1000,
    segments,
  }
}

const rows = (count: number, D: number, seed: number): KeyValueSegment => ({
  keys: normal(createRandom(seed), count * D),
  values: normal(createRandom(seed + 1), count * D),
  capacity: count,
  lengths: Int32Array.of(count),
})

/** 64 rows of 128 dims of int4 with a scale of 1, each of one code. */
function nibbleRows(codeOf: (row: number) => number): Uint8Array {
  const stride = rowBytes(128, 'int4')
  const bytes = new Uint8Array(64 * stride)
  for (let row = 0; row < 64; row++) {
    bytes.fill((codeOf(row) + 8) * 0x11, row * stride, row * stride + 64)
    new DataView(bytes.buffer).setFloat32(row * stride + 64, 1, true)
  }
  return bytes
}

describe.each(candidates)('$name', ({ open }) => {
  const kernels = open()
  const attend = (args: AttendArgs): void => kernels.attend(args)

  test.each([1, 16])('the mask of a segment is not that of the next, %i queries', (T) => {
    const hidden = { values: new Float32Array(4).fill(Number.NEGATIVE_INFINITY), headStride: 0, tokenStride: 0 }
    const first = { ...rows(4, 16, 1), firstPosition: 900, mask: hidden }
    const second = { ...rows(40, 16, 3), firstPosition: 980 }
    const allowed = { values: Uint8Array.of(1, 0, 1, 1), headStride: 0, tokenStride: 0 }
    const third = { ...rows(4, 16, 5), firstPosition: 990, mask: allowed }
    expectReference({ ...problem({ T, D: 16 }, [first, second, third]), left: 60, right: 0 }, attend, 2e-6)
  })

  test.each([96, 128])('logits of billions stay numbers, D = %i', (D) => {
    const random = createRandom(7)
    const big = (length: number): Float32Array => Float32Array.from({ length }, () => (random() - 0.5) * 2e5)
    const segment = { ...rows(40, D, 1), keys: big(40 * D) }
    for (const T of [1, 16]) {
      const args = problem({ T, D }, [segment], big(T * D))
      attend(args)
      expect(Array.from(args.output).every(Number.isFinite)).toBe(true)
    }
  })

  test('f16 keys with large queries stay numbers', () => {
    const random = createRandom(9)
    const keys = Uint16Array.from({ length: 40 * 96 }, () => f32ToF16((random() - 0.5) * 1.2e5))
    const segment = { ...rows(40, 96, 1), keys, values: keys }
    const query = Float32Array.from({ length: 16 * 96 }, () => (random() - 0.5) * 1.2e5)
    const args = problem({ T: 16, D: 96 }, [segment], query)
    attend(args)
    expect(Array.from(args.output).every(Number.isFinite)).toBe(true)
  })

  test('an infinite key of bf16 counts as what it is', () => {
    const D = 32
    const keys = Uint16Array.from(normal(createRandom(1), 20 * D), f32ToBf16)
    keys[5 * D] = f32ToBf16(Number.NEGATIVE_INFINITY)
    const values = Uint16Array.from(normal(createRandom(2), 20 * D), f32ToBf16)
    const query = normal(createRandom(3), 16 * D).map((value, i) => (i % D === 0 ? Math.abs(value) : value))
    const segment = { ...rows(20, D, 1), keys, values, storage: 'bf16' } as const
    expectReference(problem({ T: 16, D }, [segment], query), attend, 2e-6)
  })

  test.each([50, 1e4, 1e6])('a soft cap of %i keeps the precision of f32', (softcap) => {
    for (const T of [1, 16]) {
      expectReference({ ...problem({ T, D: 64 }, [rows(50, 64, 1)]), softcap }, attend, 2e-6)
    }
  })

  test('groups wider than a tile', () => {
    for (const H of [65, 71, 130]) {
      expectReference(
        { ...problem({ T: 9, H, D: 16 }, [{ ...rows(30, 16, 1), firstPosition: 979 }]), right: 0 },
        attend,
        2e-6,
      )
    }
  })

  // Where the top is 8,355,000 steps, weights of 128 become bytes of -128: with the least codes, sums are at their bounds.
  test.each([1, 2, 4])('32 rows of the least codes under small equal weights, %i heads', (H) => {
    const [keys, values] = [nibbleRows(() => 0), nibbleRows((row) => (row < 32 ? -8 : 0))]
    const bias = Float32Array.from({ length: 64 }, () => -40)
    bias.fill(Math.log(128 / 8355000), 0, 32)[32] = 0
    const segment = { keys, values, bias, storage: 'int4', capacity: 64, lengths: Int32Array.of(64) } as const
    expectReference(problem({ T: 1, H, D: 128 }, [segment]), attend, 1e-7)
  })

  test.each([Number.NaN, Number.POSITIVE_INFINITY, -3])(
    'a row of int4 with a scale of %d counts as what it is',
    (scale) => {
      const values = nibbleRows((row) => (row % 15) - 7)
      new DataView(values.buffer).setFloat32(5 * rowBytes(128, 'int4') + 64, scale, true)
      const keys = nibbleRows(() => 0)
      const args = problem({ T: 1, D: 128 }, [
        { keys, values, storage: 'int4', capacity: 64, lengths: Int32Array.of(64) },
      ])
      const exact = { ...args, output: new Float32Array(128) }
      reference.attend(exact)
      attend(args)
      if (Number.isFinite(scale)) expect(worst(args.output as Float32Array, exact.output)).toBeLessThanOrEqual(1e-6)
      else expect(args.output).toEqual(exact.output)
    },
  )

  test('positions that leave 32 bits are refused', () => {
    const segment = { ...rows(8, 16, 1), firstPosition: 2 ** 31 - 4 }
    expect(() => attend(problem({ T: 1, D: 16 }, [segment]))).toThrow(/kvasir:kernels/)
  })
})
