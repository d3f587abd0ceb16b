/**
 * Initializers that stay where they are: a tensor whose data is a byte range of a file.
 *
 * ONNX Runtime takes locations relative to one folder, and refuses absolute ones and links that lead out of it. Kvasir
 * gives the root of the file system as that folder and real paths below it, so one segment can use weights of several
 * folders (checkpoint and quantized cache), and the links of the Hugging Face download cache work.
 */
import { realpathSync } from 'node:fs'
import { join, parse, relative, resolve, sep } from 'node:path'
import { make } from './codec.ts'
import type { OnnxTensor } from './schema.ts'

/** A byte range of a file, read as a tensor of `dims` elements of `dataType` (TensorProto.DataType). */
export interface ExternalTensor {
  readonly name: string
  readonly dataType: number
  readonly dims: readonly number[]
  readonly file: string
  /** Where `file` is as `locationOf` says, for callers with many tensors of one file. */
  readonly location?: string
  readonly offset: number
  readonly byteLength: number
}

/** A file as ONNX Runtime is told it: by its real path below the root. */
export function locationOf(file: string): string {
  const path = realpathSync(file)
  return relative(parse(path).root, path).split(sep).join('/')
}

/** The initializer of a byte range. */
export function externalInitializer(tensor: ExternalTensor): OnnxTensor {
  const { name, dataType, dims, file, location = locationOf(file), offset, byteLength } = tensor
  const place = { location, offset: String(offset), length: String(byteLength) }
  return make('Tensor', {
    name,
    dataType,
    dims: [...dims],
    dataLocation: 1,
    externalData: Object.entries(place).map(([key, value]) => make('StringEntry', { key, value })),
  })
}

/** The file that an external initializer lies in. */
export function externalFile({ externalData }: OnnxTensor): string {
  const location = externalData.find(({ key }) => key === 'location')?.value ?? ''
  return join(parse(resolve('.')).root, location)
}

/** The folder that locations are relative to, for the session option. */
export function externalRoot(file: string): string {
  return parse(realpathSync(file)).root
}

/** Bytes of an initializer, wherever they are. */
export function initializerBytes(tensor: OnnxTensor): number {
  const length = tensor.externalData.find(({ key }) => key === 'length')?.value
  if (length !== undefined) return Number(length)
  const { rawData, floatData, int32Data, int64Data, doubleData } = tensor
  return (rawData?.length ?? 0) + 4 * (floatData.length + int32Data.length) + 8 * (int64Data.length + doubleData.length)
}
