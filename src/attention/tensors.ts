/** Checked access to the tensors of the public attention functions. */
import { Tensor } from 'onnxruntime-common'
import { describe } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'

/**
 * The data of an f32 tensor of the given shape. `null` in `shape` takes any size there.
 * @throws KvasirError `invalid-argument` that names the tensor, the shape expected and the shape that came.
 */
export function f32Data(name: string, tensor: unknown, shape: readonly (number | null)[]): Float32Array {
  if (!isTensor(tensor)) throw invalidArgument('attention', `expected a Tensor for ${name}, got ${describe(tensor)}`)
  if (tensor.type !== 'float32') {
    throw invalidArgument('attention', `expected float32 for ${name}, got ${tensor.type}`)
  }
  const matches =
    tensor.dims.length === shape.length && shape.every((size, i) => size === null || size === tensor.dims[i])
  if (!matches) {
    const expected = shape.map((size) => size ?? 'any').join(', ')
    throw invalidArgument('attention', `expected shape [${expected}] for ${name}, got [${tensor.dims.join(', ')}]`)
  }
  return tensor.data as Float32Array
}

export function f32Tensor(data: Float32Array, dims: readonly number[]): Tensor {
  return new Tensor('float32', data, dims)
}

function isTensor(value: unknown): value is Tensor {
  return typeof value === 'object' && value !== null && 'dims' in value && 'data' in value && 'type' in value
}

/** Swaps the middle axes: `[B, M, N, D]` of flat `data` to `[B, N, M, D]`. */
export function swapMiddle(data: Float32Array, [B, M, N, D]: readonly [number, number, number, number]): Float32Array {
  if (M === 1 || N === 1) return data
  const out = new Float32Array(data.length)
  for (let b = 0; b < B; b++) {
    for (let m = 0; m < M; m++) {
      for (let n = 0; n < N; n++) {
        const from = ((b * M + m) * N + n) * D
        out.set(data.subarray(from, from + D), ((b * N + n) * M + m) * D)
      }
    }
  }
  return out
}
