/** Calls through the TypeScript side: good ones must be right, bad ones refused, and what is accepted must be right too. */
import { isDeepStrictEqual } from 'node:util'
import { findDifferences, judge, type OpCase, type Results } from '../../src/kernels/cases/case.ts'
import type { KeepStream } from '../../src/kernels/cases/keep.ts'
import { pickFrom } from '../../src/kernels/cases/random.ts'
import type { RetainStream } from '../../src/kernels/cases/retain.ts'
import { cases } from '../../src/kernels/cases.ts'
import type { AttendArgs } from '../../src/kernels/contract.ts'
import { instructionSets, type NativeKernels, openNative } from '../../src/kernels/native.ts'
import { KvasirError } from '../../src/tensor/error.ts'
import { Homes } from './homes.ts'
import { spoilOne } from './spoil.ts'
import { tightCall } from './tight.ts'

type Random = () => number
type AnyCase = OpCase<{ readonly name: string }, object>

/** Of `retain` and `keep` the arrays of a kept set are shared between calls: they have no shortest. */
const withShortest = ['attend', 'attend', 'attend', 'weigh', 'store', 'turn', 'rotate', 'select', 'seek'] as const
const names = [...withShortest, 'retain', 'keep'] as const
const opened = new Map<string, NativeKernels>()

function kernelsOf(random: Random): NativeKernels {
  const [set, threads] = [pickFrom(random, instructionSets()), pickFrom(random, [1, 2, 5])]
  const key = `${set} ${threads}`
  const kernels = opened.get(key) ?? openNative(threads, set)
  opened.set(key, kernels)
  return kernels
}

export function goodCall(random: Random, homes: Homes): void {
  const [kernels, name] = [kernelsOf(random), pickFrom(random, names)]
  const op = cases[name] as unknown as AnyCase
  const [shape, seed] = [op.draw(random), Math.floor(random() * 2 ** 32)]
  const verdict = judge(op, shape, seed)
  const wrong = findDifferences(verdict, op.run(kernels, homes.move(verdict.inputs)))
  if (wrong.length === 0) return
  throw new Error(
    `${kernels.description}: ${name} of ${JSON.stringify({ ...shape, seed })} is off: ${JSON.stringify(wrong)}`,
  )
}

/**
 * Properties whose strange values are right to make results that differ between f32 and f64, or are nobody's promise:
 * the rest of an output that is larger than its sizes say.
 */
const notComparable = /scale|softcap|lse|kept|scores|numTokens|numHeads|valueDim|masses|output|target/

export function spoiledCall(random: Random, homes: Homes): void {
  const [kernels, name] = [kernelsOf(random), pickFrom(random, names)]
  const op = cases[name] as unknown as AnyCase
  const [shape, seed] = [op.draw(random), Math.floor(random() * 2 ** 32)]
  const args = homes.move(op.create(shape, seed))
  const changed = Array.from({ length: pickFrom(random, [1, 1, 1, 2, 3]) }, () => spoilOne(args, random))
  const copy = new Homes(random).move(args)
  let actual: Results = {}
  try {
    // Of kept sets no results are compared: what is wrong in them is the caller's, as long as nothing is damaged.
    if (name === 'keep') for (const call of (args as KeepStream).calls) kernels.keep(call)
    else if (name === 'retain') for (const call of (args as RetainStream).calls) kernels.retain(call)
    else actual = op.run(kernels, args)
  } catch (error) {
    if (error instanceof KvasirError && (error.code === 'invalid-argument' || /corrupt/.test(error.message))) return
    throw error
  }
  if (name === 'retain' || name === 'keep' || changed.some((path) => notComparable.test(path))) return
  const expected = op.reference(copy)
  const allowed = Object.fromEntries(Object.keys(expected).map((result) => [result, roughly(expected[result] ?? [])]))
  const wrong = findDifferences({ expected, allowed }, actual)
  if (wrong.length === 0) return
  const call = `${name} of ${JSON.stringify({ ...shape, seed })} with another ${changed.join(', ')}`
  throw new Error(`${kernels.description}: ${call} was accepted and is off: ${JSON.stringify(wrong)}`)
}

/** Spoiled inputs have no measured tolerance: what is wrong altogether is to be found. */
function roughly(values: Iterable<number>): number {
  let most = 1
  for (const value of values) if (Math.abs(value) < 1e30) most = Math.max(most, Math.abs(value))
  return most / 32
}

export function tightCallOf(random: Random): void {
  tightCall(kernelsOf(random), cases[pickFrom(random, withShortest)] as unknown as AnyCase, random)
}

/** A long call in the background, alone or while what it reads is changed, and others beside it. */
export async function backgroundCall(random: Random, homes: Homes): Promise<void> {
  const kernels = kernelsOf(random)
  const shape = { ...cases.attend.draw(random), numTokens: 96, numHeads: 8, numKvHeads: 2, headDim: 40, valueDim: 40 }
  const make = (): AttendArgs => cases.attend.create({ ...shape, segments: [600, 70] }, 1)
  const [args, expected] = [homes.move(make()), make()]
  const isDisturbed = random() < 0.5
  const running = kernels.attendAsync(args)
  if (isDisturbed) {
    for (const { lengths, rows, pages, births, deaths, positions } of args.segments) {
      for (const array of [lengths, rows, pages, births, deaths, positions]) {
        for (let i = 0; i < 50 && array; i++) array[Math.floor(random() * array.length)] = (random() - 0.5) * 2 ** 32
      }
    }
  }
  kernels.attend(expected)
  await running
  if (!isDisturbed && !isDeepStrictEqual(args.output, expected.output)) {
    throw new Error(`${kernels.description}: ${JSON.stringify(shape)} in the background is not what it is at once`)
  }
}
