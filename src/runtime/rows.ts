/** Values between sessions as rows of tokens: where the axis of tokens is, and tensors of some of the rows. */
import { Tensor, type TypedTensor } from 'onnxruntime-node'
import type { CutModel, OnnxValueInfo } from '../onnx/index.ts'

/** A declared shape: T stands for the number of rows; undefined where the graph does not say. */
export type RowShape = readonly (number | 'T' | undefined)[]

/** What the segments declare of the values between them. */
export interface Declared {
  readonly type: number
  readonly shape: RowShape
}

/** The declarations of all values that cross a cut, by name. */
export function declaredValues({ segments, head }: CutModel): Map<string, Declared> {
  const declared = new Map<string, Declared>()
  for (const { model } of [...segments, head]) {
    for (const info of [...model.graph!.output, ...model.graph!.input]) {
      const value = declaration(info)
      if (value) declared.set(info.name ?? '', value)
    }
  }
  return declared
}

export function declaration({ type }: OnnxValueInfo): Declared | undefined {
  const { elemType, shape } = type?.tensorType ?? {}
  if (elemType === undefined) return undefined
  const dims = shape?.dim.map(({ dimValue, dimParam }) => {
    return dimParam === 'T' ? ('T' as const) : dimValue === undefined ? undefined : Number(dimValue)
  })
  return { type: Number(elemType), shape: dims ?? [undefined] }
}

/** The axis of tokens, when everything before it has size 1: rows then lie one after the other. */
export function rowAxis(shape: RowShape | undefined): number | undefined {
  const axis = shape?.indexOf('T') ?? -1
  return axis >= 0 && shape!.slice(0, axis).every((dim) => dim === 1) ? axis : undefined
}

/** The shape of so many rows; undefined unless every other dimension is known. */
export function shapeOfRows(shape: RowShape, numRows: number): number[] | undefined {
  const dims = shape.map((dim) => (dim === 'T' ? numRows : dim))
  return dims.every((dim) => dim !== undefined) ? dims : undefined
}

type Data = Tensor['data']

/** Some rows of a tensor, copied to `target` where that is given. */
export function selectRows(tensor: Tensor, axis: number, rows: readonly number[], target?: Float32Array): Tensor {
  const source = tensor.data as Float32Array
  const size = source.length / (tensor.dims[axis] as number)
  const data = target ?? new (source.constructor as Float32ArrayConstructor)(rows.length * size)
  for (const [i, row] of rows.entries()) data.set(source.subarray(row * size, (row + 1) * size), i * size)
  return rebuilt(tensor, data, axis, rows.length)
}

/** Rows [start, start + count) without a copy. */
export function sliceRows(tensor: Tensor, axis: number, start: number, count: number): Tensor {
  const source = tensor.data as Float32Array
  const size = source.length / (tensor.dims[axis] as number)
  return rebuilt(tensor, source.subarray(start * size, (start + count) * size), axis, count)
}

function rebuilt(tensor: Tensor, data: Data, axis: number, count: number): Tensor {
  const dims = tensor.dims.map((dim, i) => (i === axis ? count : dim))
  return new Tensor(tensor.type, data as Float32Array, dims) as TypedTensor<'float32'>
}
