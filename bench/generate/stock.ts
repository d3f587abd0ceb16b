/**
 * The uncut graph in onnxruntime-node: past goes in, present comes out and is the next past. Both lie in memory that was
 * allocated once, two sets in turns; arrays that onnxruntime-node makes anew in each step cost it a copy more.
 */
import { env, InferenceSession, Tensor } from 'onnxruntime-node'
import { encodeModel, externalRoot, openOnnxFile } from '../../src/onnx/index.ts'
import { KvasirError } from '../../src/tensor/error.ts'
import { type OpenModel, type OpenOptions, randomValues } from './candidate.ts'

type Past = Record<string, Tensor>

interface StockOptions {
  /** Tokens of a prompt that are fed at once (default: all). */
  readonly chunkSize?: number
  readonly session?: Promise<InferenceSession>
}

export async function openStock(options: OpenOptions, stock: StockOptions = {}): Promise<OpenModel> {
  const { file, threads, room } = options
  const { chunkSize = Number.POSITIVE_INFINITY } = stock
  const session = await (stock.session ??
    InferenceSession.create(file, { intraOpNumThreads: threads, logSeverityLevel: 3 }))
  const version = env.versions.node!
  const states = new States(session, room)
  let held = 0

  async function run(tokens: readonly number[]): Promise<Float32Array> {
    const past = states.past(held)
    held += tokens.length
    const feeds = {
      input_ids: new Tensor('int64', BigInt64Array.from(tokens, BigInt), [1, tokens.length]),
      attention_mask: new Tensor('int64', new BigInt64Array(held).fill(1n), [1, held]),
      ...past,
    }
    const { logits } = await session.run(feeds, { logits: null, ...states.present(held) })
    return (logits!.data as Float32Array).subarray(-logits!.dims.at(-1)!)
  }

  return {
    description: `onnxruntime-node ${version}, uncut graph, K and V in f32`,
    versions: { 'onnxruntime-node': version },
    fill(tokens) {
      states.fill(tokens)
      held = tokens
    },
    held: () => held,
    async feed(tokens) {
      let logits = new Float32Array()
      for (let at = 0; at < tokens.length; at += chunkSize) {
        logits = (await run(tokens.slice(at, at + chunkSize))) as Float32Array<ArrayBuffer>
      }
      return logits
    },
  }
}

/** The same without rounding of activations: products of quantized weights in f32. */
export async function openReference(options: OpenOptions): Promise<OpenModel> {
  const model = await openOnnxFile(options.file)
  for (const { attribute } of model.graph!.node) {
    const level = attribute.findIndex(({ name }) => name === 'accuracy_level')
    if (level >= 0) attribute.splice(level, 1)
  }
  const session = InferenceSession.create(encodeModel(model), {
    intraOpNumThreads: options.threads,
    logSeverityLevel: 3,
    extra: { session: { model_external_initializers_file_folder_path: externalRoot(options.file) } },
  })
  return await openStock(options, { session })
}

/** Keys and values before and after a step. */
class States {
  readonly #names: readonly string[]
  readonly #numKvHeads: number
  readonly #headDim: number
  readonly #sets: readonly (readonly Float32Array[])[]
  /** Which of the two sets is the past. */
  #now = 0

  constructor(session: InferenceSession, room: number) {
    this.#names = session.inputNames.filter((name) => name.startsWith('past_key_values.'))
    const past = session.inputMetadata.find(({ name }) => name === this.#names[0])
    const [, numKvHeads, , headDim] = past?.isTensor ? past.shape : []
    if (typeof numKvHeads !== 'number' || typeof headDim !== 'number') {
      throw new KvasirError('internal', 'bench', 'expected an input past_key_values of known heads and head dim')
    }
    this.#numKvHeads = numKvHeads
    this.#headDim = headDim
    const create = () => this.#names.map(() => new Float32Array(numKvHeads * room * headDim))
    this.#sets = [create(), create()]
  }

  fill(tokens: number): void {
    const values = randomValues(this.#numKvHeads * tokens * this.#headDim)
    for (const buffer of this.#sets[this.#now]!) buffer.set(values)
  }

  past(tokens: number): Past {
    return this.#tensors(this.#now, tokens, (name) => name)
  }

  /** Where the step writes; becomes the past. */
  present(tokens: number): Past {
    this.#now = 1 - this.#now
    return this.#tensors(this.#now, tokens, (name) => name.replace('past_key_values', 'present'))
  }

  #tensors(set: number, tokens: number, rename: (name: string) => string): Past {
    const dims = [1, this.#numKvHeads, tokens, this.#headDim]
    const size = this.#numKvHeads * tokens * this.#headDim
    const buffers = this.#sets[set]!
    return Object.fromEntries(
      this.#names.map((name, i) => [rename(name), new Tensor('float32', buffers[i]!.subarray(0, size), dims)]),
    )
  }
}
