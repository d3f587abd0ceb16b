/** Numbers of a graph that are known before it runs: initializers, Constant nodes, and casts of them. */
import { open } from 'node:fs/promises'
import { KvasirError } from '../tensor/error.ts'
import { f16ToF32 } from '../tensor/float16.ts'
import { externalFile } from './external.ts'
import { dataTypes, type OnnxModel, type OnnxTensor } from './schema.ts'
import { invalidFile } from './wire.ts'

/** A tensor's numbers; 64-bit integers beyond 2^53 lose bits. */
export interface Numbers {
  readonly dims: readonly number[]
  readonly values: Float32Array | Float64Array
}

/** Nodes whose output has the numbers of their first input. */
const transparent = new Set(['Identity', 'Cast'])

/**
 * Reads a constant of floats.
 * @param dims the shape that it must have
 * @throws KvasirError `invalid-file` when there is no such constant or it has another shape
 */
export async function readConstant(model: OnnxModel, name: string, dims: readonly number[]): Promise<Float32Array> {
  const tensor = findConstant(model, name)
  const numbers = tensor && (await readNumbers(tensor))
  const count = dims.reduce((product, dim) => product * dim, 1)
  if (numbers?.values.length === count) return Float32Array.from(numbers.values)
  const got = numbers ? `[${numbers.dims.join(', ')}]` : 'none'
  throw invalidFile(`expected a constant of shape [${dims.join(', ')}] for "${name}", got ${got}`)
}

/** The tensor behind a value, when it is a constant that is only renamed or cast on its way. */
export function findConstant({ graph }: OnnxModel, name: string): OnnxTensor | undefined {
  for (let value: string | undefined = name, steps = 0; value !== undefined && steps < 16; steps++) {
    const wanted: string = value
    const tensor = graph!.initializer.find((candidate) => candidate.name === wanted)
    if (tensor) return tensor
    const node = graph!.node.find(({ output }) => output.includes(wanted))
    if (node?.opType === 'Constant') return node.attribute.find((attribute) => attribute.name === 'value')?.t
    value = node && transparent.has(node.opType ?? '') ? node.input[0] : undefined
  }
  return undefined
}

/**
 * The numbers of a tensor, wherever its data is (external places as `externalInitializer` gives them).
 * @throws KvasirError `not-found` without the file, `unsupported` for types that are no numbers
 */
export async function readNumbers(tensor: OnnxTensor): Promise<Numbers> {
  const dims = tensor.dims.map(Number)
  const typed = [tensor.floatData, tensor.doubleData, tensor.int32Data, tensor.int64Data, tensor.uint64Data]
  const listed = typed.find((list) => list.length > 0)
  if (listed && tensor.dataType === dataTypes.float16) {
    return { dims, values: Float32Array.from(listed, (bits) => f16ToF32(Number(bits))) }
  }
  if (listed) return { dims, values: Float64Array.from(listed, Number) }
  const bytes = tensor.dataLocation === 1 ? await readExternal(tensor) : (tensor.rawData ?? new Uint8Array(0))
  return { dims, values: fromBytes(tensor, bytes) }
}

async function readExternal(tensor: OnnxTensor): Promise<Uint8Array> {
  const places = new Map(tensor.externalData.map(({ key, value }) => [key, value ?? '']))
  const file = externalFile(tensor)
  const bytes = new Uint8Array(Number(places.get('length') ?? 0))
  const handle = await open(file).catch((cause: unknown) => {
    throw new KvasirError('not-found', 'onnx', `expected the data of "${tensor.name}" at ${file}`, { cause })
  })
  try {
    for (let done = 0; done < bytes.length; ) {
      const at = Number(places.get('offset') ?? 0) + done
      const { bytesRead } = await handle.read(bytes, done, bytes.length - done, at)
      if (bytesRead === 0) throw invalidFile(`expected ${bytes.length} bytes for "${tensor.name}", got ${done}`)
      done += bytesRead
    }
    return bytes
  } finally {
    await handle.close()
  }
}

type ReadElement = (view: DataView, at: number) => number

/** Bytes an element and how to read one, by TensorProto.DataType. */
const readers: Readonly<Record<number, readonly [number, ReadElement]>> = {
  [dataTypes.float]: [4, (view, at) => view.getFloat32(at, true)],
  [dataTypes.uint8]: [1, (view, at) => view.getUint8(at)],
  [dataTypes.int8]: [1, (view, at) => view.getInt8(at)],
  [dataTypes.int32]: [4, (view, at) => view.getInt32(at, true)],
  [dataTypes.int64]: [8, (view, at) => Number(view.getBigInt64(at, true))],
  [dataTypes.bool]: [1, (view, at) => view.getUint8(at)],
  [dataTypes.float16]: [2, (view, at) => f16ToF32(view.getUint16(at, true))],
  [dataTypes.double]: [8, (view, at) => view.getFloat64(at, true)],
  [dataTypes.bfloat16]: [2, (view, at) => widen(view.getUint16(at, true))],
}

function fromBytes({ name, dataType, dims }: OnnxTensor, bytes: Uint8Array): Float32Array | Float64Array {
  const reader = readers[Number(dataType)]
  if (!reader) throw new KvasirError('unsupported', 'onnx', `expected numbers for "${name}", got type ${dataType}`)
  const [size, read] = reader
  const count = dims.reduce<number>((product, dim) => product * Number(dim), 1)
  if (count * size !== bytes.length) {
    throw invalidFile(`expected ${count * size} bytes for "${name}", got ${bytes.length}`)
  }
  // A copy begins at an aligned byte. (All machines that Node runs on are little endian but s390x.)
  if (dataType === dataTypes.float) return new Float32Array(new Uint8Array(bytes).buffer)
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const isFloat = dataType === dataTypes.float16 || dataType === dataTypes.bfloat16
  const values = isFloat ? new Float32Array(count) : new Float64Array(count)
  for (let i = 0; i < count; i++) values[i] = read(view, i * size)
  return values
}

/** bf16 is the upper half of an f32. */
function widen(bits: number): number {
  const word = new Uint32Array([bits << 16])
  return new Float32Array(word.buffer)[0] as number
}
