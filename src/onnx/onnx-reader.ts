/**
 * Reads a `.onnx` file without its weights: the raw data of large initializers is passed over, so that opening a file
 * of gigabytes takes the memory of its graph. Knows the structure of the file; `onnx-file.ts` knows what it means.
 */
import { readSync } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import { decodeMessage } from './codec.ts'
import { openForReading } from './open-file.ts'
import { type OnnxModel, type OnnxTensor, schema } from './schema.ts'
import { invalidFile, WireReader, type WireType } from './wire.ts'

/** A range of bytes in a file. */
export interface ByteRange {
  readonly offset: number
  readonly length: number
}

export interface SparseModel {
  readonly model: OnnxModel
  /** Where the raw data of initializers lies that was passed over. */
  readonly places: ReadonlyMap<OnnxTensor, ByteRange>
}

const modelGraph = schema.Model.graph[0]
const graphInitializer = schema.Graph.initializer[0]
const tensorRawData = schema.Tensor.rawData[0]

/**
 * @param smallest raw data of fewer bytes is read with the graph
 * @throws KvasirError `not-found` without the file, `invalid-file` on anything that is not an ONNX model
 */
export async function readSparseModel(path: string, smallest: number): Promise<SparseModel> {
  const { handle, size } = await openForReading('onnx', path)
  try {
    const reader = new SparseReader(new FileWindow(handle, size), smallest)
    return reader.model(size)
  } finally {
    await handle.close()
  }
}

class SparseReader {
  readonly #file: FileWindow
  readonly #smallest: number
  readonly #places = new Map<OnnxTensor, ByteRange>()

  constructor(file: FileWindow, smallest: number) {
    this.#file = file
    this.#smallest = smallest
  }

  model(size: number): SparseModel {
    let graph: OnnxModel['graph']
    const rest = this.#split('Model', { offset: 0, length: size }, (field, place) => {
      if (field !== modelGraph) return false
      graph = this.#graph(place)
      return true
    })
    const model = decodeMessage('Model', rest)
    if (!graph) throw invalidFile('expected an ONNX model with a graph, got none')
    return { model: { ...model, graph }, places: this.#places }
  }

  #graph(range: ByteRange): NonNullable<OnnxModel['graph']> {
    const initializer: OnnxTensor[] = []
    const rest = this.#split('Graph', range, (field, place) => {
      if (field !== graphInitializer) return false
      initializer.push(this.#tensor(place))
      return true
    })
    return { ...decodeMessage('Graph', rest), initializer }
  }

  #tensor(range: ByteRange): OnnxTensor {
    let data: ByteRange | undefined
    const rest = this.#split('Tensor', range, (field, place) => {
      if (field !== tensorRawData || place.length < this.#smallest) return false
      data = place
      return true
    })
    const tensor = decodeMessage('Tensor', rest)
    if (data) this.#places.set(tensor, data)
    return tensor
  }

  /** Offers each length-delimited field to `take`; returns the bytes of all known fields that it leaves. */
  #split(
    name: 'Model' | 'Graph' | 'Tensor',
    range: ByteRange,
    take: (field: number, place: ByteRange) => boolean,
  ): Uint8Array {
    const known = new Set<number>(Object.values(schema[name]).map(([number]) => number))
    const left: Uint8Array[] = []
    const end = range.offset + range.length
    for (let position = range.offset; position < end; ) {
      const { field, wireType, place } = this.#field(position, end)
      const next = place.offset + place.length
      const isTaken = wireType === 2 && take(field, place)
      if (place.length > longestRead && !isTaken && known.has(field)) {
        throw invalidFile(`expected less than ${longestRead} bytes but for weights, got ${place.length} of ${name}`)
      }
      if (!isTaken && known.has(field)) left.push(this.#file.bytes(position, next - position))
      position = next
    }
    return Buffer.concat(left)
  }

  /** The field at a position, and where its value lies. */
  #field(position: number, end: number): { field: number; wireType: WireType; place: ByteRange } {
    const head = new WireReader(this.#file.bytes(position, Math.min(longestHead, end - position)))
    const { field, wireType } = head.tag()
    if (wireType !== 2) {
      head.skip(wireType)
      return { field, wireType, place: { offset: position + head.position, length: 0 } }
    }
    const length = Number(head.varint())
    const offset = position + head.position
    if (!(length <= end - offset)) {
      throw invalidFile(`expected ${length} bytes at byte ${offset}, got ${end - offset} before the end`)
    }
    return { field, wireType, place: { offset, length } }
  }
}

/** A tag and a varint or a length. */
const longestHead = 20
/** What is read at once: where the file is read on, and where it goes on behind a weight. */
const windowSizes = { next: 1 << 16, elsewhere: 1 << 12 }
/** What one read can take. */
const longestRead = 1 << 30

/** Reads a file piece by piece. */
class FileWindow {
  readonly #handle: FileHandle
  readonly #size: number
  #start = 0
  #bytes: Uint8Array = new Uint8Array(0)

  constructor(handle: FileHandle, size: number) {
    this.#handle = handle
    this.#size = size
  }

  /** A copy, or a view of a window that is never written again. */
  bytes(offset: number, length: number): Uint8Array {
    if (offset < this.#start || offset + length > this.#start + this.#bytes.length) {
      const isNext = offset >= this.#start && offset <= this.#start + this.#bytes.length
      const window = isNext ? windowSizes.next : windowSizes.elsewhere
      this.#bytes = this.#read(offset, Math.min(Math.max(length, window), this.#size - offset))
      this.#start = offset
    }
    return this.#bytes.subarray(offset - this.#start, offset - this.#start + length)
  }

  /** Reads are short and many, one for each weight: going through the pool of threads takes ten times as long. */
  #read(offset: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length)
    for (let done = 0; done < length; ) {
      const bytesRead = readSync(this.#handle.fd, bytes, done, Math.min(length - done, longestRead), offset + done)
      if (bytesRead === 0) throw invalidFile(`expected ${length} bytes at byte ${offset}, got ${done}`)
      done += bytesRead
    }
    return bytes
  }
}
