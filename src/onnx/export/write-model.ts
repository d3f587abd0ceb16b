/**
 * An exported model on disk: one `.onnx` file, or a small one with its weights beside it, `NAME.onnx_data` and then
 * `NAME.onnx_data_1` and so on, as transformers.js expects them. All sizes are known before any weight is made, so
 * files are written from front to back with one weight in memory at a time.
 */
import { open } from 'node:fs/promises'
import { basename } from 'node:path'
import { KvasirError } from '../../tensor/error.ts'
import { encodeMessage, make } from '../codec.ts'
import { type OnnxModel, schema } from '../schema.ts'
import { WireWriter } from '../wire.ts'
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
  const { maxInlineBytes, onProgress, signal } = options
  const total = bytesOf(plans.flatMap(({ tensors }) => tensors))
  const places = placeTensors(plans, total > maxInlineBytes ? options.maxFileBytes : undefined)
  const files = places.reduce((most, { part = -1 }) => Math.max(most, part + 1), 0)
  const names = Array.from({ length: files }, (_, i) => `${file}_data${i === 0 ? '' : `_${i}`}`)
  const entries = places.map((place) => entryOf(place, names))
  const graph = new FileWriter(file)
  const data = names.map((name) => new FileWriter(name))
  try {
    await graph.write(headOf(model, entries))
    let [next, done] = [0, 0]
    for (const { produce } of plans) {
      if (signal?.aborted) throw new KvasirError('aborted', 'onnx', 'the export was interrupted')
      for (const bytes of await produce()) {
        const { part, padding } = places[next]!
        await graph.write(entries[next++]!.head)
        await (part === undefined ? graph : data[part]!).write(bytes)
        if (padding > 0) await data[part!]!.write(new Uint8Array(padding))
        done += bytes.length
      }
      onProgress(done, total)
    }
  } finally {
    for (const writer of [graph, ...data]) await writer.close()
  }
  return names
}

interface Place {
  readonly tensor: PlannedTensor
  /** Number of its file of weights; undefined: in the graph. */
  readonly part: number | undefined
  readonly offset: number
  /** Bytes up to the next tensor. */
  readonly padding: number
}

function placeTensors(plans: readonly WeightPlan[], maxFileBytes: number | undefined): Place[] {
  let [part, offset] = [0, 0]
  return plans
    .flatMap(({ tensors }) => tensors)
    .map((tensor) => {
      const { byteLength } = tensor
      if (maxFileBytes === undefined || byteLength < smallestExternal) {
        return { tensor, part: undefined, offset: 0, padding: 0 }
      }
      if (offset > 0 && offset + byteLength > maxFileBytes) {
        part++
        offset = 0
      }
      const padding = (alignment - (byteLength % alignment)) % alignment
      const place = { tensor, part, offset, padding }
      offset += byteLength + padding
      return place
    })
}

/** The bytes of an initializer in the graph file before its weights, and how long it is with them. */
interface Entry {
  readonly head: Uint8Array
  readonly byteLength: number
}

function entryOf({ tensor, part, offset }: Place, files: readonly string[]): Entry {
  const { name, dataType, dims, byteLength } = tensor
  const plain = make('Tensor', { name, dataType, dims: [...dims] })
  if (part !== undefined) {
    const place = { location: basename(files[part]!), offset: String(offset), length: String(byteLength) }
    const externalData = Object.entries(place).map(([key, value]) => make('StringEntry', { key, value }))
    return entry(encodeMessage('Tensor', { ...plain, dataLocation: 1, externalData }), 0)
  }
  const message = encodeMessage('Tensor', plain)
  const rawData = header(schema.Tensor.rawData[0], byteLength)
  return entry(Buffer.concat([message, rawData]), byteLength)
}

function entry(message: Uint8Array, dataLength: number): Entry {
  const head = Buffer.concat([header(schema.Graph.initializer[0], message.length + dataLength), message])
  return { head, byteLength: head.length + dataLength }
}

/** Everything before the first initializer of the plans: the graph is the last field of the model, they of the graph. */
function headOf({ graph, ...model }: OnnxModel, entries: readonly Entry[]): Uint8Array {
  const nodes = encodeMessage('Graph', graph!)
  const length = nodes.length + entries.reduce((sum, { byteLength }) => sum + byteLength, 0)
  return Buffer.concat([encodeMessage('Model', model), header(schema.Model.graph[0], length), nodes])
}

/** Tag and length of a field. */
function header(field: number, length: number): Uint8Array {
  const writer = new WireWriter()
  writer.tag(field, 2)
  writer.varint(length)
  return writer.finish()
}

/** A new file, opened when something is written. */
class FileWriter {
  readonly #path: string
  #handle: Awaited<ReturnType<typeof open>> | undefined

  constructor(path: string) {
    this.#path = path
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.#handle ??= await open(this.#path, 'wx')
    await this.#handle.writeFile(bytes)
  }

  async close(): Promise<void> {
    await this.#handle?.sync()
    await this.#handle?.close()
  }
}

function bytesOf(tensors: readonly PlannedTensor[]): number {
  return tensors.reduce((sum, { byteLength }) => sum + byteLength, 0)
}
