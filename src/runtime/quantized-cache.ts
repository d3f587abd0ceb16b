/**
 * Quantized weights on disk, made once for each checkpoint: `<cache>/<fingerprint>/int4.safetensors` and beside it
 * `int4.json` with the size and SHA-256 of that file. The manifest is written last, so it is what makes the file
 * valid; a file that does not fit its manifest is made again. The fingerprint is of contents: a checkpoint may move, and
 * copies share one entry.
 */
import { createHash } from 'node:crypto'
import { readdir, rm, stat } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import {
  type Checkpoint,
  type OnnxModel,
  type QuantizedBits,
  quantizableWeights,
  quantizedBlockSize,
  quantizedNames,
  quantizeMatrix,
  quantizeModel,
  readJson,
  readSafetensorsHeader,
  readTensor,
  type TensorEntry,
  type TensorPlan,
  type Weights,
  writeSafetensors,
} from '../onnx/index.ts'
import { KvasirError } from '../tensor/error.ts'
import { makeFolder } from '../tensor/make-folder.ts'
import { fileDigest, writeWhole } from './file-digest.ts'

/** Raised whenever the layout of the codes changes. */
const formatVersion = 2

const bitsOf = { int8: 8, int4: 4 } as const

interface Manifest {
  readonly size: number
  readonly sha256: string
}

/**
 * The checkpoint's graph over quantized weights, which are made first where they are not there yet.
 * @throws KvasirError `internal` when the cache folder can't be written
 */
export async function quantizedModel(checkpoint: Checkpoint, quantize: 'int8' | 'int4'): Promise<OnnxModel> {
  const bits = bitsOf[quantize]
  const sources = quantizableWeights(checkpoint.model, checkpoint.weights)
  if (sources.length === 0) return checkpoint.model
  const folder = join(cacheFolder(), await fingerprint(sources))
  const file = join(folder, `${quantize}.safetensors`)
  const weights = (await openValid(file)) ?? (await build(folder, file, sources, bits))
  return quantizeModel(checkpoint.model, weights, bits)
}

/** `$KVASIR_CACHE`, else `~/.cache/kvasir`. */
export function cacheFolder(): string {
  return process.env.KVASIR_CACHE || join(homedir(), '.cache', 'kvasir')
}

/** Of the contents of the files that hold the weights, and of where in them which weight lies. */
async function fingerprint(sources: readonly TensorEntry[]): Promise<string> {
  const hash = createHash('sha256').update(`kvasir ${formatVersion}\n`)
  const digests = new Map<string, string>()
  for (const { file } of sources) if (!digests.has(file)) digests.set(file, await digestOf(file))
  for (const { name, dtype, shape, file, offset } of sources) {
    hash.update(JSON.stringify([name, dtype, shape, digests.get(file), offset]))
  }
  return hash.digest('hex').slice(0, 32)
}

/** SHA-256 of a file, which is read once. */
export function digestOf(file: string): Promise<string> {
  return fileDigest(file, join(cacheFolder(), 'digests'))
}

/** The tensors of a file that is just as it was written; undefined otherwise. */
async function openValid(file: string): Promise<Weights | undefined> {
  try {
    const { size, sha256 } = (await readJson(manifestOf(file))) as Manifest
    const info = await stat(file)
    if (info.size !== size || (await digestOf(file)) !== sha256) return undefined
    return await readSafetensorsHeader(file)
  } catch {
    return undefined // absent or broken: the caller makes a new one, and errors of that are told
  }
}

async function build(
  folder: string,
  file: string,
  sources: readonly TensorEntry[],
  bits: QuantizedBits,
): Promise<Weights> {
  try {
    await makeFolder(folder)
    await removeAbandoned(folder)
    const sha256 = await writeSafetensors(
      file,
      sources.flatMap((source) => planOf(source, bits)),
      dataOf(sources, bits),
    )
    const { size } = await stat(file)
    await writeWhole(manifestOf(file), JSON.stringify({ size, sha256 } satisfies Manifest))
    return await readSafetensorsHeader(file)
  } catch (cause) {
    const message = `expected to write quantized weights to ${folder} (KVASIR_CACHE chooses another place)`
    throw new KvasirError('internal', 'runtime', `${message}: ${String(cause)}`, { cause })
  }
}

/** Nobody writes for an hour without a change: what is that old is left from a process that was killed. */
const abandonedAfter = 3_600_000

/** Half-written files that will never get their names. */
async function removeAbandoned(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    if (!name.endsWith('.tmp')) continue
    const file = join(folder, name)
    const info = await stat(file).catch(() => undefined)
    if (info && Date.now() - info.mtimeMs > abandonedAfter) await rm(file, { force: true })
  }
}

function planOf({ name, shape }: TensorEntry, bits: QuantizedBits): TensorPlan[] {
  const [rows, columns] = shape as [number, number]
  const numBlocks = Math.ceil(columns / quantizedBlockSize)
  const names = quantizedNames(name)
  return [
    { name: names.codes, dtype: 'U8', shape: [rows, numBlocks, (quantizedBlockSize * bits) / 8] },
    { name: names.scales, dtype: 'F32', shape: [rows, numBlocks] },
  ]
}

async function* dataOf(sources: readonly TensorEntry[], bits: QuantizedBits): AsyncGenerator<Uint8Array> {
  for (const source of sources) {
    const { codes, scales } = quantizeMatrix(await readTensor(source), source.shape[0]!, bits)
    yield codes
    yield new Uint8Array(scales.buffer, scales.byteOffset, scales.byteLength)
  }
}

function manifestOf(file: string): string {
  return file.replace(/\.safetensors$/, '.json')
}
