/**
 * The tensors of a checkpoint folder: `model.safetensors`, or the shards that `model.safetensors.index.json` names.
 * Headers are read here; data only by `readTensor`, one tensor at a time.
 */
import { open, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { describe } from '../tensor/check.ts'
import { KvasirError } from '../tensor/error.ts'
import { f16ToF32 } from '../tensor/float16.ts'
import { readSafetensorsHeader, type TensorEntry } from './safetensors.ts'

/** The dtypes of weights that Kvasir computes with. */
export type FloatDtype = 'F32' | 'F16' | 'BF16'

export type Weights = ReadonlyMap<string, TensorEntry>

const indexName = 'model.safetensors.index.json'

/**
 * Lists the tensors of a checkpoint; the single file wins when there is an index too.
 * @throws KvasirError `not-found` without either file, `invalid-file` for a wrong header, index or shard
 */
export async function openWeights(folder: string): Promise<Weights> {
  const single = join(folder, 'model.safetensors')
  if (await exists(single)) return readSafetensorsHeader(single)
  const indexFile = join(folder, indexName)
  if (!(await exists(indexFile))) {
    throw new KvasirError('not-found', 'safetensors', `expected model.safetensors or ${indexName} in ${folder}`)
  }
  const weightMap = parseIndex(await readFile(indexFile, 'utf8'), indexFile)
  const shards = new Map<string, Map<string, TensorEntry>>()
  for (const shard of new Set(weightMap.values())) {
    shards.set(shard, await readSafetensorsHeader(join(folder, shard)))
  }
  const weights = new Map<string, TensorEntry>()
  for (const [name, shard] of weightMap) {
    const entry = shards.get(shard)!.get(name)
    if (!entry) throw refuse(indexFile, `expected tensor "${name}" in ${shard}, got none`)
    weights.set(name, entry)
  }
  return weights
}

/** The `weight_map` of an index: tensor name to the plain name of its shard. */
export function parseIndex(text: string, file: string): Map<string, string> {
  let index: unknown
  try {
    index = JSON.parse(text)
  } catch (cause) {
    throw refuse(file, 'expected JSON, got something else', cause)
  }
  const weightMap = (index as { weight_map?: unknown } | null)?.weight_map
  if (typeof weightMap !== 'object' || weightMap === null || Array.isArray(weightMap)) {
    throw refuse(file, `expected an object for weight_map, got ${describe(weightMap)}`)
  }
  const result = new Map<string, string>()
  for (const [name, shard] of Object.entries(weightMap)) {
    // A name with a separator could leave the folder, and the file would then be handed to ONNX Runtime.
    if (typeof shard !== 'string' || !/^[^/\\:\0]+\.safetensors$/.test(shard)) {
      throw refuse(file, `expected a plain file name for the shard of "${name}", got ${describe(shard)}`)
    }
    result.set(name, shard)
  }
  return result
}

/**
 * Reads one tensor as f32, `shape` elements in row-major order.
 * @throws KvasirError `unsupported` for dtypes other than F32, F16 and BF16
 */
export async function readTensor(entry: TensorEntry): Promise<Float32Array> {
  const { dtype } = entry
  if (dtype !== 'F32' && dtype !== 'F16' && dtype !== 'BF16') {
    throw new KvasirError('unsupported', 'safetensors', `expected F32, F16 or BF16 for "${entry.name}", got ${dtype}`)
  }
  return toFloat32(await readTensorBytes(entry), dtype)
}

/** Little-endian bytes of `dtype` as f32, exactly. (All machines that Node runs on are little endian but s390x.) */
function toFloat32(bytes: Uint8Array, dtype: FloatDtype): Float32Array {
  if (dtype === 'F32') return new Float32Array(bytes.slice().buffer) // a copy begins at an aligned byte
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const result = new Float32Array(bytes.length / 2)
  if (dtype === 'BF16') widenBf16(view, result)
  else for (let i = 0; i < result.length; i++) result[i] = f16ToF32(view.getUint16(2 * i, true))
  return result
}

/** The bytes of one tensor as they stand in the file. */
async function readTensorBytes(entry: TensorEntry): Promise<Uint8Array> {
  const handle = await open(entry.file)
  try {
    const bytes = new Uint8Array(entry.byteLength)
    for (let done = 0; done < bytes.length; ) {
      const { bytesRead } = await handle.read(bytes, done, bytes.length - done, entry.offset + done)
      if (bytesRead === 0) throw refuse(entry.file, `expected ${bytes.length} bytes for "${entry.name}", got ${done}`)
      done += bytesRead
    }
    return bytes
  } finally {
    await handle.close()
  }
}

/** bf16 is the upper half of an f32. */
function widenBf16(view: DataView, result: Float32Array): void {
  const bits = new Uint32Array(result.buffer)
  for (let i = 0; i < bits.length; i++) bits[i] = view.getUint16(2 * i, true) << 16
}

/** True when two tensors have the same dtype, shape and bytes; reads both in pieces. */
export async function sameTensor(a: TensorEntry, b: TensorEntry): Promise<boolean> {
  if (a.dtype !== b.dtype || String(a.shape) !== String(b.shape)) return false
  const piece = 1 << 20
  for (let done = 0; done < a.byteLength; done += piece) {
    const byteLength = Math.min(piece, a.byteLength - done)
    const [left, right] = await Promise.all(
      [a, b].map((entry) => readTensorBytes({ ...entry, offset: entry.offset + done, byteLength })),
    )
    if (Buffer.compare(left!, right!) !== 0) return false
  }
  return true
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    (info) => info.isFile(),
    () => false,
  )
}

function refuse(file: string, message: string, cause?: unknown): KvasirError {
  return new KvasirError('invalid-file', 'safetensors', `${file}: ${message}`, { cause })
}
