/**
 * What a case object says of its op. One object an op feeds the conformance tests of all backends, the fuzzing of the
 * addon, the table of docs/kernels.md, and whoever needs shapes, operations or bytes.
 */
import type { Kernels } from '../contract.ts'
import { openReference } from '../reference.ts'

/** What an op wrote, by name, in an order that does not depend on the backend. */
export type Results = Readonly<Record<string, Iterable<number> & ArrayLike<number>>>

export interface OpCase<Shape extends { readonly name: string }, Args> {
  /** The values of each dimension and option that `draw` takes one from: primes, lengths off by one, every form. */
  readonly axes: Readonly<Record<string, readonly unknown[]>>
  /** Chosen by hand: what the conformance tests run. */
  readonly shapes: readonly Shape[]
  /** A shape from the axes, small enough for the reference. */
  draw(random: () => number): Shape
  /** Inputs from a seed. What the op is to write holds something else before; what it must not read holds NaN. */
  create(shape: Shape, seed: number): Args
  run(kernels: Kernels, args: Args): Results
  /** What is right, in f64. */
  reference(args: Args): Results
  /**
   * The largest difference from the reference that a backend may make in each result; 0: the same numbers.
   * @param args inputs of the shape, to be used up
   */
  tolerance(shape: Shape, args: Args, expected: Results): Readonly<Record<string, number>>
  /** Floating-point operations, a multiply-add counted as two; comparisons are not counted. */
  flops(shape: Shape): number
  /** Bytes that have to be read or written at least once. */
  bytes(shape: Shape): number
}

export const reference: Kernels = openReference()

/** Of a result: its largest difference from what is right, and the largest allowed. */
export interface Difference {
  readonly result: string
  readonly difference: number
  readonly allowed: number
}

export interface Verdict<Args> {
  readonly inputs: Args
  readonly expected: Results
  readonly allowed: Readonly<Record<string, number>>
}

/**
 * Inputs of a shape and a seed, and what is right for them: the slow part, so for several backends it is worked out once,
 * and each gets a copy of the inputs.
 */
export function judge<Shape extends { readonly name: string }, Args>(
  op: OpCase<Shape, Args>,
  shape: Shape,
  seed: number,
): Verdict<Args> {
  const inputs = op.create(shape, seed)
  const expected = op.reference(structuredClone(inputs))
  return { inputs, expected, allowed: op.tolerance(shape, structuredClone(inputs), expected) }
}

/** Results that are off by more than allowed: none for a backend that is right. NaN is off unless NaN is expected. */
export function findDifferences(
  { expected, allowed }: Omit<Verdict<unknown>, 'inputs'>,
  actual: Results,
): Difference[] {
  const names = Object.keys(expected)
  return names
    .map((result) => ({
      ...{ result, allowed: allowed[result] ?? 0 },
      difference: largestDifference(actual[result] ?? [], expected[result] ?? []),
    }))
    .filter((each) => !(each.difference <= each.allowed))
}

/** Infinite for NaN where a number is expected, or the other way round, and for lists of other lengths. */
export function largestDifference(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (actual.length !== expected.length) return Number.POSITIVE_INFINITY
  let most = 0
  for (let i = 0; i < expected.length; i++) {
    const [ours, theirs] = [actual[i] as number, expected[i] as number]
    const difference = Object.is(ours, theirs) ? 0 : Math.abs(ours - theirs)
    if (Number.isNaN(difference)) return Number.POSITIVE_INFINITY
    if (difference > most) most = difference
  }
  return most
}
