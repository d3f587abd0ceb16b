/**
 * An exported model on disk: one `.onnx` file, or a small one with its weights beside it, `NAME.onnx_data` and then
 * `NAME.onnx_data_1` and so on, as transformers.js expects them.
 */
import { type FileHandle, open, writeFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { KvasirError } from '../../tensor/error.ts'
import { encodeModel, make } from '../codec.ts'
import type { OnnxModel, OnnxTensor } from '../schema.ts'
import type { PlannedTensor, WeightPlan } from './weight-plan.ts'

export interface WriteOptions {
  /** Weights beyond this many bytes in all go into files of their own. */
  readonly maxInlineBytes: number
  /** Size of those files, unless one tensor is larger. */
  readonly maxFileBytes: number
  readonly onProgress: (doneBytes: number, totalBytes: number) => void
  readonly signal?: AbortSignal | undefined
}

/** Smaller tensors stay in the graph: ONNX Runtime wants to see them while it loads it. */
const smallestExternal = 1024

/** Offsets of tensors in a file of weights. */
const alignment = 64

/** @returns the files of weights beside it */
export async function writeModel(
  file: string,
  model: OnnxModel,
  plans: readonly WeightPlan[],
  options: WriteOptions,
): Promise<string[]> {
  const { maxInlineBytes, maxFileBytes, onProgress, signal } = options
  const total = plans.flatMap(({ tensors }) => tensors).reduce((sum, { byteLength }) => sum + byteLength, 0)
  const place = total > maxInlineBytes ? new ExternalFiles(file, maxFileBytes) : undefined
  const initializer: OnnxTensor[] = []
  let done = 0
  try {
    for (const { tensors, produce } of plans) {
      if (signal?.aborted) throw new KvasirError('aborted', 'onnx', 'the export was interrupted')
      for (const [i, bytes] of (await produce()).entries()) {
        const tensor = tensors[i]!
        const isExternal = place !== undefined && bytes.length >= smallestExternal
        initializer.push(isExternal ? await place.add(tensor, bytes) : inline(tensor, bytes))
        done += bytes.length
      }
      onProgress(done, total)
    }
  } finally {
    await place?.close()
  }
  const graph = model.graph!
  const whole = { ...model, graph: { ...graph, initializer: [...graph.initializer, ...initializer] } }
  await writeFile(file, encodeModel(whole), { flush: true })
  return place?.files ?? []
}

function inline({ name, dataType, dims }: PlannedTensor, rawData: Uint8Array): OnnxTensor {
  return make('Tensor', { name, dataType, dims: [...dims], rawData })
}

class ExternalFiles {
  readonly files: string[] = []
  readonly #model: string
  readonly #maxBytes: number
  #handle: FileHandle | undefined
  #offset = 0

  constructor(model: string, maxBytes: number) {
    this.#model = model
    this.#maxBytes = maxBytes
  }

  async add({ name, dataType, dims }: PlannedTensor, bytes: Uint8Array): Promise<OnnxTensor> {
    const isFull = this.#offset > 0 && this.#offset + bytes.length > this.#maxBytes
    const handle = this.#handle === undefined || isFull ? await this.#next() : this.#handle
    const offset = this.#offset
    await handle.writeFile(bytes)
    const padding = (alignment - (bytes.length % alignment)) % alignment
    if (padding) await handle.writeFile(new Uint8Array(padding))
    this.#offset += bytes.length + padding
    const location = basename(this.files.at(-1)!)
    const places = { location, offset: String(offset), length: String(bytes.length) }
    const externalData = Object.entries(places).map(([key, value]) => make('StringEntry', { key, value }))
    return make('Tensor', { name, dataType, dims: [...dims], dataLocation: 1, externalData })
  }

  async close(): Promise<void> {
    const handle = this.#handle
    this.#handle = undefined
    await handle?.sync()
    await handle?.close()
  }

  async #next(): Promise<FileHandle> {
    await this.close()
    const count = this.files.length
    this.files.push(`${this.#model}_data${count ? `_${count}` : ''}`)
    this.#handle = await open(this.files.at(-1)!, 'wx')
    this.#offset = 0
    return this.#handle
  }
}
