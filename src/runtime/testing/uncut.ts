/** Axes of a past that are not its length, as the published graphs of tests name them. */
const sizes: Readonly<Record<string, number>> = { batch_size: 1, 'batch_size x num_heads': smallDecoder.numHeads }

/** A decoder as ONNX Runtime runs it whole, with past and present: what the cut must agree with. */
import { InferenceSession, Tensor } from 'onnxruntime-node'
import { smallDecoder } from '../../onnx/testing/published/writer.ts'
import { f16ToF32 } from '../../tensor/float16.ts'

export class UncutDecoder {
  readonly #session: InferenceSession
  readonly #inputs: readonly InferenceSession.TensorValueMetadata[]
  readonly vocabSize: number

  private constructor(session: InferenceSession) {
    this.#session = session
    this.#inputs = session.inputMetadata.filter((info) => info.isTensor)
    const logits = session.outputMetadata.find((info) => info.name === 'logits') as InferenceSession.TensorValueMetadata
    this.vocabSize = Number(logits.shape.at(-1))
  }

  static async open(file: string): Promise<UncutDecoder> {
    const options = { intraOpNumThreads: 1, interOpNumThreads: 1, logSeverityLevel: 4 as const }
    return new UncutDecoder(await InferenceSession.create(file, options))
  }

  /** Logits `[tokens.length, V]` of a sequence: the first `prompt` tokens at once, the others one by one. */
  async logits(tokens: readonly number[], prompt: number): Promise<Float32Array> {
    const rows: Float32Array[] = []
    let past = this.#emptyPast()
    for (let done = 0; done < tokens.length; ) {
      const count = done === 0 ? prompt : 1
      const outputs = await this.#session.run({ ...past, ...this.#step(tokens.slice(done, done + count), done) })
      rows.push(singles(outputs.logits!))
      past = Object.fromEntries(
        Object.entries(outputs)
          .filter(([name]) => name.startsWith('present'))
          .map(([name, tensor]) => [name.replace('present.', 'past_key_values.').replace('present_', 'past_'), tensor]),
      ) as Record<string, Tensor>
      done += count
    }
    const all = new Float32Array(tokens.length * this.vocabSize)
    let at = 0
    for (const row of rows) {
      all.set(row, at)
      at += row.length
    }
    return all
  }

  #step(tokens: readonly number[], done: number): Record<string, Tensor> {
    const integers = (name: string, values: readonly number[]): Tensor => {
      const isNarrow = this.#inputs.some((input) => input.name === name && input.type === 'int32')
      if (isNarrow) return new Tensor('int32', Int32Array.from(values), [1, values.length])
      return new Tensor('int64', BigInt64Array.from(values, BigInt), [1, values.length])
    }
    const positions = tokens.map((_, i) => done + i)
    // Three rows, where a graph has them: for time, height and width, which in a text are the same.
    const rows = this.#inputs.find(({ name, shape }) => name === 'position_ids' && shape.length === 3)?.shape[0]
    const threefold = Array.from({ length: Number(rows ?? 0) }, () => positions).flat()
    const all: Record<string, Tensor> = {
      input_ids: integers('input_ids', tokens),
      attention_mask: integers('attention_mask', new Array<number>(done + tokens.length).fill(1)),
      position_ids: rows
        ? new Tensor('int64', BigInt64Array.from(threefold, BigInt), [Number(rows), 1, tokens.length])
        : integers('position_ids', positions),
      use_cache_branch: new Tensor('bool', [done > 0], [1]),
    }
    return Object.fromEntries(Object.entries(all).filter(([name]) => this.#inputs.some((input) => input.name === name)))
  }

  #emptyPast(): Record<string, Tensor> {
    const past = this.#inputs.filter(({ name }) => name.startsWith('past'))
    return Object.fromEntries(
      past.map(({ name, shape, type }) => {
        const dims = shape.map((dim) => (typeof dim === 'number' ? dim : (sizes[dim] ?? 0)))
        const size = dims.reduce((product, dim) => product * dim, 1)
        const data = type === 'float16' ? new Uint16Array(size) : new Float32Array(size)
        return [name, new Tensor(type as 'float32', data as Float32Array, dims)]
      }),
    )
  }

  async release(): Promise<void> {
    await this.#session.release()
  }
}

function singles({ type, data }: Tensor): Float32Array {
  return type === 'float16' ? Float32Array.from(data as Uint16Array, f16ToF32) : (data as Float32Array)
}
