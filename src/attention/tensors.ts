/** Checked access to the tensors of the public attention functions: type, shape, length, and where the data lies. */
import { Tensor } from 'onnxruntime-common'
import type { FloatArray, FloatType } from '../kernels/index.ts'
import { checkChoice, describe } from '../tensor/check.ts'
import { invalidArgument, KvasirError } from '../tensor/error.ts'

/** Sizes by axis; `null` takes any. */
export type ShapePattern = readonly (number | null)[]

/** A tensor of numbers as the kernels take it. */
export interface FloatData {
  readonly data: FloatArray
  readonly storage: FloatType
  readonly dims: readonly number[]
}

const tensorTypes = { f32: 'float32', f16: 'float16', bf16: 'uint16' } as const satisfies Record<FloatType, string>

/**
 * The data of a tensor of f32, f16 or bf16.
 * @param dtype what the tensor must hold; absent: float32 or float16. ONNX Runtime's tensors have no type for bf16 in
 * JavaScript, so its bits come as uint16 and only `dtype` tells.
 * @throws KvasirError `invalid-argument` that names the tensor, what was expected and what came; `unsupported` when
 * the data is on a device
 */
export function floatData(name: string, tensor: unknown, shape: ShapePattern, dtype?: FloatType): FloatData {
  if (dtype !== undefined) checkChoice('attention', 'dtype', dtype, Object.keys(tensorTypes) as FloatType[])
  const { type, dims } = checkTensor(name, tensor)
  const storage = dtype ?? (type === 'float16' ? 'f16' : 'f32')
  if (type !== tensorTypes[storage]) {
    const expected = dtype ? `${tensorTypes[storage]} (dtype "${dtype}")` : 'float32 or float16'
    const hint = type === 'uint16' ? ', which is taken as bf16 when dtype is "bf16"' : ''
    throw invalidArgument('attention', `expected ${expected} for ${name}, got ${typeName(type)}${hint}`)
  }
  checkShape(name, dims, shape)
  return { data: dataOf(name, tensor as Tensor, storage), storage, dims }
}

/** The data of a float32 tensor. */
export function f32Data(name: string, tensor: unknown, shape: ShapePattern): Float32Array {
  return typedData(name, tensor, shape, 'float32', Float32Array)
}

/** The data of a tensor of `type`, an array of `Type`. */
export function typedData<T extends ArrayBufferView & { readonly length: number }>(
  name: string,
  tensor: unknown,
  shape: ShapePattern,
  type: Tensor.Type,
  Type: new (length: number) => T,
): T {
  const { type: came, dims } = checkTensor(name, tensor)
  if (came !== type) throw invalidArgument('attention', `expected ${type} for ${name}, got ${typeName(came)}`)
  checkShape(name, dims, shape)
  const data = readData(name, tensor as Tensor)
  if (!(data instanceof Type)) {
    throw invalidArgument('attention', `expected a ${Type.name} in ${name}, got ${describe(data)}`)
  }
  return checkLength(name, data, dims)
}

/** Bare where it is the name of a type, as other libraries have them too. */
function typeName(type: unknown): string {
  return typeof type === 'string' ? type : describe(type)
}

function dataOf(name: string, tensor: Tensor, storage: FloatType): FloatArray {
  const data = readData(name, tensor)
  const Type = storage === 'f32' ? Float32Array : Uint16Array
  const stored = storage === 'f16' && isFloat16Array(data) ? bitsOf(data) : data
  if (!(stored instanceof Type)) {
    throw invalidArgument('attention', `expected a ${Type.name} in ${name}, got ${describe(data)}`)
  }
  return checkLength(name, stored, tensor.dims)
}

/** Node 20 has no Float16Array; runtimes that have it may hold the data of a float16 tensor in one. */
function isFloat16Array(data: unknown): data is ArrayBufferView & { readonly length: number } {
  return ArrayBuffer.isView(data) && data.constructor.name === 'Float16Array'
}

function bitsOf(data: ArrayBufferView & { readonly length: number }): Uint16Array {
  return new Uint16Array(data.buffer, data.byteOffset, data.length)
}

function readData(name: string, tensor: Tensor): unknown {
  try {
    const location = tensor.location ?? 'cpu'
    if (location.startsWith('cpu')) return tensor.data
    if (location === 'none') throw new Error('it was disposed of')
    throw new KvasirError('unsupported', 'attention', `expected ${name} in main memory, got it on ${location}`)
  } catch (cause) {
    if (cause instanceof KvasirError) throw cause
    throw new KvasirError('invalid-argument', 'attention', `expected ${name} with data, got one without`, { cause })
  }
}

/** `dims` of a tensor can be changed after it was made, and a buffer that is given to a worker loses its bytes. */
function checkLength<T extends { readonly length: number }>(name: string, data: T, dims: readonly number[]): T {
  const expected = dims.reduce((product, size) => product * size, 1)
  if (data.length === expected) return data
  const detached = data.length === 0 ? ' (a detached buffer?)' : ''
  throw invalidArgument('attention', `expected ${expected} elements in ${name}, got ${data.length}${detached}`)
}

function checkTensor(name: string, tensor: unknown): Pick<Tensor, 'type' | 'dims'> {
  if (!isTensor(tensor)) throw invalidArgument('attention', `expected a Tensor for ${name}, got ${describe(tensor)}`)
  checkDims(name, tensor.dims)
  checkStrides(name, tensor)
  return tensor
}

/** ONNX Runtime checks those of its own tensors; others may hold anything, and anybody may change them later. */
function checkDims(name: string, dims: readonly unknown[]): void {
  if (dims.every((size) => Number.isSafeInteger(size) && (size as number) >= 0)) return
  throw invalidArgument('attention', `expected sizes in the dims of ${name}, got [${dims.map(describe).join(', ')}]`)
}

/** ONNX Runtime's tensors have no strides; those of other libraries do, and must lie in memory row by row. */
function checkStrides(name: string, tensor: Tensor & { readonly strides?: unknown }): void {
  if (tensor.strides === undefined || tensor.strides === null) return
  const expected = tensor.dims.map((_, axis) => tensor.dims.slice(axis + 1).reduce((a, b) => a * b, 1))
  const given = Array.from(tensor.strides as ArrayLike<number>)
  // What an axis of 1 has for a stride says nothing.
  if (given.length === expected.length && given.every((stride, i) => stride === expected[i] || tensor.dims[i] === 1))
    return
  throw invalidArgument('attention', `expected rows one after the other in ${name} (strides ${expected}), got ${given}`)
}

/** @throws KvasirError when the dims don't match */
export function checkShape(name: string, dims: readonly number[], shape: ShapePattern): void {
  const matches = dims.length === shape.length && shape.every((size, i) => size === null || size === dims[i])
  if (matches) return
  const expected = shape.map((size) => size ?? 'any').join(', ')
  throw invalidArgument('attention', `expected shape [${expected}] for ${name}, got [${dims.join(', ')}]`)
}

/** Whether it is meant as one: what its fields hold is checked when it is read. */
export function isTensor(value: unknown): value is Tensor {
  if (typeof value !== 'object' || value === null || !('data' in value) || !('type' in value)) return false
  return 'dims' in value && Array.isArray(value.dims)
}

export function f32Tensor(data: Float32Array, dims: readonly number[]): Tensor {
  return new Tensor('float32', data, dims)
}

/** A tensor of what was stored: the type that `floatData` reads. */
export function storedTensor(data: FloatArray, storage: FloatType, dims: readonly number[]): Tensor {
  if (data instanceof Float32Array) return f32Tensor(data, dims)
  return storage === 'f16' ? new Tensor('float16', data, dims) : new Tensor('uint16', data, dims)
}

/** Zeros in the array type of `storage`. */
export function allocate(storage: FloatType, length: number): FloatArray {
  return storage === 'f32' ? new Float32Array(length) : new Uint16Array(length)
}

/** Swaps the middle axes: `[B, M, N, D]` of flat `data` to `[B, N, M, D]`. The same array when nothing would move. */
export function swapMiddle<T extends FloatArray>(data: T, dims: readonly [number, number, number, number]): T {
  const [B, M, N, D] = dims
  if (M === 1 || N === 1) return data
  const out = (data instanceof Float32Array ? new Float32Array(data.length) : new Uint16Array(data.length)) as T
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
