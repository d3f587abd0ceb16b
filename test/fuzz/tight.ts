/** Calls with an array that is just long enough: a check that asks for too little shows. */
import { findDifferences, judge, type OpCase } from '../../src/kernels/cases/case.ts'
import { pickFrom } from '../../src/kernels/cases/random.ts'
import type { NativeKernels } from '../../src/kernels/native.ts'
import { KvasirError } from '../../src/tensor/error.ts'
import { guard, type TypedArray } from './homes.ts'
import { pathsOf } from './spoil.ts'

type AnyCase = OpCase<{ readonly name: string }, object>

/** Cuts arrays of a good call, one at a time, to the shortest that the addon takes; the results must stay right. */
export function tightCall(kernels: NativeKernels, op: AnyCase, random: () => number): void {
  const [shape, seed] = [op.draw(random), Math.floor(random() * 2 ** 32)]
  const verdict = judge(op, shape, seed)
  const arrays = pathsOf(verdict.inputs).filter((path) => ArrayBuffer.isView(at(verdict.inputs, path)))
  for (let n = 0; n < Math.min(5, arrays.length); n++) cutOne(pickFrom(random, arrays))

  function cutOne(path: readonly string[]): void {
    const whole = at(verdict.inputs, path) as TypedArray
    const isTaken = (length: number): boolean => {
      try {
        op.run(kernels, withArray(verdict.inputs, path, atEnd(whole, length)))
        return true
      } catch (error) {
        if (error instanceof KvasirError && error.code === 'invalid-argument') return false
        throw error
      }
    }
    let [refused, taken] = [-1, whole.length]
    while (taken - refused > 1) {
      const middle = Math.floor((refused + taken) / 2)
      if (isTaken(middle)) taken = middle
      else refused = middle
    }
    const wrong = findDifferences(verdict, op.run(kernels, withArray(verdict.inputs, path, atEnd(whole, taken))))
    // What the op writes may be shorter than the case had it, and its results with it.
    if (wrong.every(({ result }) => path.includes(result.split(' ')[0] ?? ''))) return
    const call = `${JSON.stringify({ ...shape, seed })} with ${taken} elements in ${path.join('.')}`
    throw new Error(`${kernels.description}: ${call} is off: ${JSON.stringify(wrong)}`)
  }
}

function at(value: object, path: readonly string[]): unknown {
  return path.reduce<unknown>((each, name) => (each as Record<string, unknown>)[name], value)
}

function withArray(inputs: object, path: readonly string[], array: TypedArray): object {
  const args = structuredClone(inputs)
  const name = path.at(-1) as string
  Object.assign(at(args, path.slice(0, -1)) as object, { [name]: array })
  return args
}

/** The first elements, flush with memory that can't be read. */
function atEnd(array: TypedArray, length: number): TypedArray {
  const Type = array.constructor as new (buffer: ArrayBuffer, offset: number, length: number) => TypedArray
  const copy = new Type(guard.allocate(length * array.BYTES_PER_ELEMENT, true), 0, length)
  copy.set(array.subarray(0, length) as never)
  return copy
}
