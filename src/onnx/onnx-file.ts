/**
 * A `.onnx` file whose weights stay where they are: initializers of some size become byte ranges of the file itself,
 * those that are external already are checked and resolved. The graph is otherwise as it was.
 */
import { realpath, stat } from 'node:fs/promises'
import { dirname, isAbsolute, join, sep } from 'node:path'
import { describe } from '../tensor/check.ts'
import { isKvasirError, KvasirError, withPath } from '../tensor/error.ts'
import { elementBits } from './element-bits.ts'
import { externalInitializer, locationOf } from './external.ts'
import { type ByteRange, readSparseModel } from './onnx-reader.ts'
import type { OnnxAttribute, OnnxGraph, OnnxModel, OnnxNode, OnnxTensor } from './schema.ts'
import { invalidFile } from './wire.ts'

/** Smaller ones are shapes and other constants, which ONNX Runtime wants to see while it loads a graph. */
const smallestWeight = 1024

/**
 * Reads a model, but for its weights, however large they are.
 * @throws KvasirError `not-found` without the file or a file of weights, `invalid-file` naming the file and the tensor
 * that is wrong
 */
export async function openOnnxFile(path: string): Promise<OnnxModel> {
  try {
    const { model, places } = await readSparseModel(path, smallestWeight)
    return { ...model, graph: await graphInPlace(model.graph!, places, new Files(path)) }
  } catch (error) {
    throw withPath(error, path)
  }
}

/** Files that hold weights, each looked up once however many tensors it has. */
class Files {
  /** The `.onnx` file. */
  readonly path: string
  readonly #known = new Map<string, Promise<WeightFile>>()
  readonly #beside = new Map<string, Promise<WeightFile>>()

  constructor(path: string) {
    this.path = path
  }

  /**
   * A file that the model's own names. Links may lead to where that really lies, as in the cache of the Hugging Face
   * tools, but not out of the folder to anything else.
   * @throws what `stat` throws, `invalid-file` for other links
   */
  beside(file: string): Promise<WeightFile> {
    const known = this.#beside.get(file) ?? this.#checked(file)
    this.#beside.set(file, known)
    return known
  }

  async #checked(file: string): Promise<WeightFile> {
    const [real, model, folder] = await Promise.all([file, this.path, dirname(this.path)].map((at) => realpath(at)))
    if (real!.startsWith(folder! + sep) || dirname(real!) === dirname(model!)) return await this.get(file)
    throw invalidFile(`expected weights below the model's folder, got a link from ${file} to ${real}`)
  }

  /** @throws what `stat` throws */
  get(file: string): Promise<WeightFile> {
    const known = this.#known.get(file) ?? stat(file).then(({ size }) => ({ file, size, location: locationOf(file) }))
    this.#known.set(file, known)
    return known
  }
}

interface WeightFile {
  readonly file: string
  readonly size: number
  /** For `externalInitializer`. */
  readonly location: string
}

async function graphInPlace(
  graph: OnnxGraph,
  places: ReadonlyMap<OnnxTensor, ByteRange>,
  files: Files,
): Promise<OnnxGraph> {
  const initializer: OnnxTensor[] = []
  for (const tensor of graph.initializer) initializer.push(await inPlace(tensor, places.get(tensor), files))
  const node: OnnxNode[] = []
  for (const item of graph.node) node.push(hasTensors(item) ? await nodeInPlace(item, files) : item)
  return { ...graph, node, initializer }
}

function hasTensors({ attribute }: OnnxNode): boolean {
  return attribute.some(({ t, tensors, g, graphs }) => t || g || tensors.length > 0 || graphs.length > 0)
}

/** Constants must have their data with them; subgraphs (If, Loop) have initializers as graphs do. */
async function nodeInPlace(node: OnnxNode, files: Files): Promise<OnnxNode> {
  const attribute: OnnxAttribute[] = []
  for (const item of node.attribute) {
    const outside = [...(item.t ? [item.t] : []), ...item.tensors].find(({ dataLocation }) => dataLocation === 1)
    if (outside) throw invalidFile(`expected data inside the graph for constants of node "${node.name}", got a file`)
    const graphs: OnnxGraph[] = []
    for (const graph of item.graphs) graphs.push(await graphInPlace(graph, new Map(), files))
    attribute.push({ ...item, graphs, ...(item.g && { g: await graphInPlace(item.g, new Map(), files) }) })
  }
  return { ...node, attribute }
}

async function inPlace(tensor: OnnxTensor, place: ByteRange | undefined, files: Files): Promise<OnnxTensor> {
  const { name = '', rawData } = tensor
  if (tensor.dataLocation === 1) return resolved(tensor, files)
  const length = place?.length ?? rawData?.length
  if (length === undefined) return tensor
  const byteLength = byteLengthOf(tensor)
  if (length !== byteLength) {
    throw invalidFile(`expected ${byteLength} bytes for initializer "${name}", got ${length}`)
  }
  return place ? external(tensor, await files.get(files.path), place.offset) : tensor
}

/** External data by its real path, after a check that it lies in the model's folder and the file is long enough. */
async function resolved(tensor: OnnxTensor, files: Files): Promise<OnnxTensor> {
  const entries = new Map(tensor.externalData.map(({ key, value }) => [key, value]))
  const location = entries.get('location') ?? ''
  if (
    location === '' ||
    isAbsolute(location) ||
    /^[a-z]:|\0/i.test(location) ||
    location.split(/[/\\]/).includes('..')
  ) {
    throw invalidFile(`expected a file below the model's folder for "${tensor.name}", got ${describe(location)}`)
  }
  const path = join(dirname(files.path), ...location.split('/'))
    .split('/')
    .join(sep)
  const file = await files.beside(path).catch((cause: unknown) => {
    if (isKvasirError(cause)) throw cause
    throw new KvasirError('not-found', 'onnx', `expected weights of "${tensor.name}" at ${path}`, { cause })
  })
  const byteLength = byteLengthOf(tensor)
  const [offset, length] = [Number(entries.get('offset') ?? 0), Number(entries.get('length') ?? byteLength)]
  if (!Number.isSafeInteger(offset) || offset < 0 || length !== byteLength || offset + length > file.size) {
    const got = `${length} bytes at ${offset} of ${file.size}`
    throw invalidFile(`expected ${byteLength} bytes inside ${location} for "${tensor.name}", got ${got}`)
  }
  return external(tensor, file, offset)
}

function external(tensor: OnnxTensor, { file, location }: WeightFile, offset: number): OnnxTensor {
  return externalInitializer({
    name: tensor.name ?? '',
    dataType: Number(tensor.dataType),
    dims: tensor.dims.map(Number),
    file,
    location,
    offset,
    byteLength: byteLengthOf(tensor),
  })
}

/** Multiplied step by step, so that an overflow is seen. */
function byteLengthOf({ name, dims, dataType }: OnnxTensor): number {
  const bits = elementBits[Number(dataType)]
  if (bits === undefined) throw invalidFile(`expected a numeric type for initializer "${name}", got ${dataType}`)
  let elements = 1
  for (const dim of dims) {
    elements *= Number(dim)
    if (!(Number(dim) >= 0 && elements * bits <= Number.MAX_SAFE_INTEGER)) {
      throw invalidFile(`expected a possible shape for initializer "${name}", got [${dims.join(', ')}]`)
    }
  }
  return Math.ceil((elements * bits) / 8)
}
