/** Short lists of numbers among the options: a tensor, a typed array or plain numbers, by what the caller has. */
import type { Tensor } from 'onnxruntime-common'
import { checkInteger, describe } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import { checkShape, f32Data, isTensor, type ShapePattern, typedData } from './tensors.ts'

/** Lengths, positions, indices. */
export type IntegerList = Tensor | Int32Array | readonly number[]
/** Slopes, logits. */
export type FloatList = Tensor | Float32Array | readonly number[]

/**
 * Integers in min..max.
 * @param length null takes any
 */
export function integerList(
  name: string,
  value: unknown,
  length: number | null,
  { min = 0, max }: { readonly min?: number; readonly max: number },
): Int32Array {
  const list = isTensor(value) ? typedData(name, value, [length], 'int32', Int32Array) : value
  if (!Array.isArray(list) && !(list instanceof Int32Array)) {
    throw invalidArgument('attention', `expected an int32 tensor or integers for ${name}, got ${describe(value)}`)
  }
  checkShape(name, [list.length], [length])
  for (let i = 0; i < list.length; i++) checkInteger('attention', `${name}[${i}]`, list[i], min, max)
  return list instanceof Int32Array ? list : Int32Array.from(list)
}

/**
 * Numbers of one of the shapes; plain numbers and typed arrays are of the first one.
 * @param isGood what each number must fulfil, in words `expected`
 */
export function floatList(
  name: string,
  value: unknown,
  shapes: readonly [ShapePattern, ...ShapePattern[]],
  { expected, isGood }: { readonly expected: string; readonly isGood: (value: number) => boolean },
): Float32Array {
  const list = isTensor(value)
    ? f32Data(name, value, shapes.find((s) => s.length === value.dims.length) ?? shapes[0])
    : value
  if (!Array.isArray(list) && !(list instanceof Float32Array)) {
    throw invalidArgument('attention', `expected a float32 tensor or numbers for ${name}, got ${describe(value)}`)
  }
  if (!isTensor(value)) checkShape(name, [list.length], shapes[0])
  for (let i = 0; i < list.length; i++) {
    if (typeof list[i] === 'number' && isGood(list[i] as number)) continue
    throw invalidArgument('attention', `expected ${expected} in ${name}, got ${describe(list[i])}`)
  }
  return list instanceof Float32Array ? list : Float32Array.from(list)
}

/** Finite as f32, which is what kernels compute in. */
export const finite = {
  expected: 'finite numbers',
  isGood: (value: number) => Number.isFinite(Math.fround(value)),
} as const
export const finiteOrHidden = {
  expected: 'finite numbers or -Infinity',
  isGood: (value: number) => Math.fround(value) < Number.POSITIVE_INFINITY,
} as const
