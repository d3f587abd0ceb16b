/** Masks and biases `[B | 1, H | 1, T | 1, S]`: an axis of 1 is broadcast by a stride of 0, never copied. */
import type { Tensor } from 'onnxruntime-common'
import type { FloatType, LogitMask } from '../kernels/index.ts'
import { invalidArgument } from '../tensor/error.ts'
import { floatData, isTensor, typedData } from './tensors.ts'
import { widen } from './widen.ts'

interface MaskSizes {
  readonly B: number
  readonly H: number
  readonly T: number
  readonly S: number
}

/** The mask of sequence b. */
export type MaskOf = (b: number) => LogitMask | undefined

/** Added to the logits; f32, or the type of the query, which is widened once. NaN and +Infinity are refused. */
export function readBias(name: string, tensor: Tensor, sizes: MaskSizes, dtype: FloatType | undefined): MaskOf {
  const type = isTensor(tensor) ? tensor.type : undefined
  const { data, storage, dims } = floatData(name, tensor, anyOf(tensor), type === 'float32' ? 'f32' : dtype)
  const values = widen(data, storage)
  checkBias(name, values)
  return broadcast(name, values, dims, sizes)
}

/** true: visible. */
export function readAllowed(name: string, tensor: Tensor, sizes: MaskSizes): MaskOf {
  return broadcast(name, typedData(name, tensor, anyOf(tensor), 'bool', Uint8Array), tensor.dims, sizes)
}

export function checkBias(name: string, values: Float32Array): void {
  for (let i = 0; i < values.length; i++) {
    if ((values[i] as number) < Number.POSITIVE_INFINITY) continue
    throw invalidArgument('attention', `expected finite numbers or -Infinity in ${name}, got ${values[i]}`)
  }
}

function anyOf(tensor: unknown): null[] {
  return isTensor(tensor) ? tensor.dims.map(() => null) : []
}

function broadcast(
  name: string,
  values: Float32Array | Uint8Array,
  dims: readonly number[],
  { B, H, T, S }: MaskSizes,
): MaskOf {
  const [b1, h1, t1, s1] = [1, 1, 1, 1, ...dims].slice(-4) as [number, number, number, number]
  const fits = dims.length <= 4 && (b1 === 1 || b1 === B) && (h1 === 1 || h1 === H) && (t1 === 1 || t1 === T)
  if (!fits || s1 !== S) {
    const expected = [B, H, T].map((size) => (size === 1 ? '1' : `${size} or 1`)).join(', ')
    throw invalidArgument('attention', `expected shape [${expected}, ${S}] for ${name}, got [${dims.join(', ')}]`)
  }
  const perSequence = h1 * t1 * S
  const strides = { headStride: h1 === 1 ? 0 : t1 * S, tokenStride: t1 === 1 ? 0 : S }
  return (b) => {
    const from = b1 === 1 ? 0 : b * perSequence
    return { values: values.subarray(from, from + perSequence), ...strides }
  }
}
