/** The weights of an export: what each tensor is called and how its bytes are made, one matrix in memory at a time. */
import { KvasirError } from '../../tensor/error.ts'
import { f32ToF16 } from '../../tensor/float16.ts'
import { blockSize, type QuantizedBits, quantizeMatrix } from '../quantize.ts'
import type { TensorEntry } from '../safetensors.ts'
import { dataTypes } from '../schema.ts'
import { readTensor } from '../weights.ts'

export interface PlannedTensor {
  readonly name: string
  /** TensorProto.DataType */
  readonly dataType: number
  readonly dims: readonly number[]
  readonly byteLength: number
}

/** Tensors that are made together. */
export interface WeightPlan {
  readonly tensors: readonly PlannedTensor[]
  /** Little-endian bytes of each. */
  readonly produce: () => Promise<Uint8Array[]>
}

export type FloatType = 'f32' | 'f16'

export interface FloatPlanOptions {
  readonly type: FloatType
  /** `[N, K]` becomes `[K, N]`, as MatMul wants it. */
  readonly isTransposed?: boolean
  /** Added to every element. */
  readonly offset?: number
}

/** A tensor of the checkpoint as floats. */
export function planFloats(name: string, entry: TensorEntry, options: FloatPlanOptions): WeightPlan {
  const { type, isTransposed = false, offset = 0 } = options
  const dims = isTransposed ? [...entry.shape].reverse() : entry.shape
  return planOf(floatTensor(name, type, dims), async () => {
    const values = await readTensor(entry)
    if (offset !== 0) for (let i = 0; i < values.length; i++) values[i]! += offset
    return floatBytes(isTransposed ? transpose(values, entry.shape[0]!) : values, type, name)
  })
}

/** Numbers that are made here. */
export function planNumbers(
  name: string,
  dims: readonly number[],
  type: FloatType,
  make: () => Float32Array,
): WeightPlan {
  return planOf(floatTensor(name, type, dims), async () => floatBytes(make(), type, name))
}

/** `[N, K]` as codes and scales for MatMulNBits. */
export function planQuantized(entry: TensorEntry, names: QuantizedNames, bits: QuantizedBits): WeightPlan {
  const [rows, columns] = entry.shape as [number, number]
  const numBlocks = Math.ceil(columns / blockSize)
  const [codesDims, scalesDims] = [[rows, numBlocks, (blockSize * bits) / 8], [rows * numBlocks]]
  return {
    tensors: [
      { name: names.codes, dataType: dataTypes.uint8, dims: codesDims, byteLength: productOf(codesDims) },
      { name: names.scales, dataType: dataTypes.float, dims: scalesDims, byteLength: 4 * productOf(scalesDims) },
    ],
    produce: async () => {
      const { codes, scales } = quantizeMatrix(await readTensor(entry), rows, bits)
      return [codes, bytesOf(scales)]
    },
  }
}

export interface QuantizedNames {
  readonly codes: string
  readonly scales: string
}

function planOf(tensor: PlannedTensor, produce: () => Promise<Uint8Array>): WeightPlan {
  return { tensors: [tensor], produce: async () => [await produce()] }
}

function floatTensor(name: string, type: FloatType, dims: readonly number[]): PlannedTensor {
  const [dataType, size] = type === 'f16' ? [dataTypes.float16, 2] : [dataTypes.float, 4]
  return { name, dataType, dims, byteLength: size * productOf(dims) }
}

/** @throws KvasirError `unsupported` for finite numbers that f16 does not reach */
function floatBytes(values: Float32Array, type: FloatType, name: string): Uint8Array {
  if (type === 'f32') return bytesOf(values)
  const halves = new Uint16Array(values.length)
  for (let i = 0; i < values.length; i++) {
    const half = f32ToF16(values[i]!)
    if ((half & 0x7fff) === 0x7c00 && Number.isFinite(values[i])) {
      const message = `expected numbers within 65504 for f16, got ${values[i]} in "${name}"; export it as f32`
      throw new KvasirError('unsupported', 'onnx', message)
    }
    halves[i] = half
  }
  return bytesOf(halves)
}

/** In tiles, so that both sides stay in the processor's caches. */
function transpose(values: Float32Array, rows: number): Float32Array {
  const columns = values.length / rows
  const result = new Float32Array(values.length)
  const tile = 32
  for (let top = 0; top < rows; top += tile) {
    for (let left = 0; left < columns; left += tile) {
      const [bottom, right] = [Math.min(top + tile, rows), Math.min(left + tile, columns)]
      for (let row = top; row < bottom; row++) {
        for (let column = left; column < right; column++) result[column * rows + row] = values[row * columns + column]!
      }
    }
  }
  return result
}

function bytesOf({ buffer, byteOffset, byteLength }: Float32Array | Uint16Array): Uint8Array {
  return new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength)
}

function productOf(dims: readonly number[]): number {
  return dims.reduce((product, dim) => product * dim, 1)
}
