/** The uncut graph in onnxruntime-node, as its users run it: past goes in, present comes out and is the next past. */
import { env, InferenceSession, Tensor } from 'onnxruntime-node'
import { KvasirError } from '../../src/tensor/error.ts'
import { type OpenModel, type OpenOptions, randomValues } from './candidate.ts'

type Past = Record<string, Tensor>

/** @param chunkSize tokens of a prompt that are fed at once */
export async function openStock(options: OpenOptions, chunkSize = Number.POSITIVE_INFINITY): Promise<OpenModel> {
  const { file, threads } = options
  const session = await InferenceSession.create(file, { intraOpNumThreads: threads, logSeverityLevel: 3 })
  const version = env.versions.node!
  const names = session.inputNames.filter((name) => name.startsWith('past_key_values.'))
  const { numKvHeads, headDim } = sizesOfPast(session)
  let past = createPast(0)
  let held = 0

  function createPast(tokens: number): Past {
    const dims = [1, numKvHeads, tokens, headDim]
    return Object.fromEntries(
      names.map((name) => [name, new Tensor('float32', randomValues(numKvHeads * tokens * headDim), dims)]),
    )
  }

  async function run(tokens: readonly number[]): Promise<Float32Array> {
    held += tokens.length
    const outputs = await session.run({
      input_ids: new Tensor('int64', BigInt64Array.from(tokens, BigInt), [1, tokens.length]),
      attention_mask: new Tensor('int64', new BigInt64Array(held).fill(1n), [1, held]),
      ...past,
    })
    past = Object.fromEntries(names.map((name) => [name, outputs[name.replace('past_key_values', 'present')]!]))
    const logits = outputs.logits!
    return (logits.data as Float32Array).subarray(-logits.dims.at(-1)!)
  }

  return {
    description: `onnxruntime-node ${version}, uncut graph, K and V in f32`,
    versions: { 'onnxruntime-node': version },
    fill(tokens) {
      past = {}
      past = createPast(tokens)
      held = tokens
    },
    held: () => past[names[0]!]!.dims[2]!,
    async feed(tokens) {
      let logits = new Float32Array()
      for (let at = 0; at < tokens.length; at += chunkSize) {
        logits = (await run(tokens.slice(at, at + chunkSize))) as Float32Array<ArrayBuffer>
      }
      return logits
    },
  }
}

function sizesOfPast(session: InferenceSession): { numKvHeads: number; headDim: number } {
  const past = session.inputMetadata.find(({ name }) => name.startsWith('past_key_values.'))
  const [, numKvHeads, , headDim] = past?.isTensor ? past.shape : []
  if (typeof numKvHeads === 'number' && typeof headDim === 'number') return { numKvHeads, headDim }
  throw new KvasirError('internal', 'bench', 'expected an input past_key_values of known heads and head dim')
}
