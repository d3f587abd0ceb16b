/**
 * Models of random numbers, written once into a cache folder: a checkpoint, and for each type of weights the ONNX folder
 * that `kvasir convert` makes of it. Both sides of the bench run the same ONNX file.
 */
import { createHash } from 'node:crypto'
import { mkdtemp, readdir, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { exportDtypes, exportOnnx, writeSafetensors } from '../../src/onnx/index.ts'
import { cacheFolder } from '../../src/runtime/quantized-cache.ts'
import { KvasirError } from '../../src/tensor/error.ts'
import { makeFolder } from '../../src/tensor/make-folder.ts'
import type { ShapeName, WeightType } from './contract.ts'
import { writeGguf } from './gguf.ts'
import { configOf, type RandomTensor, shapes, tensorsOf } from './shapes.ts'

/** Raised whenever the numbers change. */
const formatVersion = 1

export interface BenchModel {
  /** In the layout of transformers.js. */
  readonly folder: string
  /** The graph in it. */
  readonly file: string
  readonly parameters: number
  /** Of the graph and its weights. */
  readonly fileBytes: number
}

/** Writes what is not there yet; nothing is ever there by half. */
export async function prepareModel(shape: ShapeName, weights: WeightType, signal?: AbortSignal): Promise<BenchModel> {
  const place = placeOf(shape)
  const folder = join(place, weights)
  await makeFolder(place)
  const checkpoint = join(place, 'checkpoint')
  if (!(await exists(folder))) {
    if (!(await exists(checkpoint))) await writeCheckpoint(place, checkpoint, shape, signal)
    await exportOnnx(checkpoint, folder, { dtype: weights, ...(signal && { signal }) })
  }
  const onnx = join(folder, 'onnx')
  const sizes = await Promise.all((await readdir(onnx)).map(async (name) => (await stat(join(onnx, name))).size))
  return {
    folder,
    file: join(onnx, `model${exportDtypes[weights].suffix}.onnx`),
    parameters: tensorsOf(shapes[shape]).reduce((sum, tensor) => sum + sizeOf(tensor), 0),
    fileBytes: sizes.reduce((sum, size) => sum + size, 0),
  }
}

function placeOf(shape: ShapeName): string {
  const version = createHash('sha256')
    .update(JSON.stringify([formatVersion, configOf(shape)]))
    .digest('hex')
    .slice(0, 8)
  return join(cacheFolder(), 'bench', `${shape}-${version}`)
}

/** The same weights for llama.cpp; after `prepareModel`. */
export async function prepareGguf(shape: ShapeName, weights: WeightType): Promise<string> {
  const place = placeOf(shape)
  const file = join(place, `${weights}.gguf`)
  if (await exists(file)) return file
  const temporary = await mkdtemp(join(place, 'writing-'))
  try {
    await writeGguf(join(place, 'checkpoint'), join(temporary, 'model.gguf'), shapes[shape], weights)
    await rename(join(temporary, 'model.gguf'), file)
    return file
  } finally {
    await rm(temporary, { recursive: true, force: true })
  }
}

async function writeCheckpoint(
  place: string,
  target: string,
  shape: ShapeName,
  signal: AbortSignal | undefined,
): Promise<void> {
  const temporary = await mkdtemp(join(place, 'writing-'))
  try {
    const tensors = tensorsOf(shapes[shape])
    const plans = tensors.map(({ name, shape: dims }) => ({ name, shape: dims, dtype: 'BF16' as const }))
    await writeSafetensors(join(temporary, 'model.safetensors'), plans, randomBytes(tensors, signal))
    await writeFile(join(temporary, 'config.json'), JSON.stringify(configOf(shape)))
    await writeFile(join(temporary, 'tokenizer.json'), JSON.stringify(tokenizer))
    await rename(temporary, target)
  } catch (error) {
    await rm(temporary, { recursive: true, force: true })
    throw error
  }
}

/** One stream of numbers through all tensors: no two layers are alike, so that none stays in the processor's cache. */
function* randomBytes(tensors: readonly RandomTensor[], signal: AbortSignal | undefined): Generator<Uint8Array> {
  const number = new Float32Array(1)
  const bits = new Uint32Array(number.buffer)
  let state = 0x9e3779b9
  for (const tensor of tensors) {
    if (signal?.aborted) throw new KvasirError('aborted', 'bench', 'interrupted')
    const rounded = new Uint16Array(sizeOf(tensor))
    const { mean, width } = tensor
    for (let i = 0; i < rounded.length; i++) {
      // xorshift32
      state ^= state << 13
      state ^= state >>> 17
      state ^= state << 5
      number[0] = mean + (width * state) / 2 ** 31
      rounded[i] = bits[0]! >>> 16
    }
    yield new Uint8Array(rounded.buffer)
  }
}

function sizeOf({ shape }: RandomTensor): number {
  return shape.reduce((product, dim) => product * dim, 1)
}

function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  )
}

/** A model folder has one; nothing here turns tokens into text. */
const tokenizer = {
  ...{ version: '1.0', truncation: null, padding: null, added_tokens: [], normalizer: null, pre_tokenizer: null },
  ...{ post_processor: null, decoder: null, model: { type: 'BPE', unk_token: null, vocab: { a: 0 }, merges: [] } },
}
