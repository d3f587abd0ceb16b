/**
 * Models whose graphs bring tokens together outside of attention are tried when they are loaded: some exports go on
 * from a state only token by token, and what looks like a state may be none.
 */
import { KvasirError } from '../tensor/error.ts'
import type { CausalLM } from './contract.ts'
import type { ModelSource } from './model-source.ts'

/** Length of the pieces in which the same short text is read. */
const divisions = { whole: [6], pieces: [3, 3], single: [1, 1, 1, 1, 1, 1] }

/** Of the range of the logits. Activations that are quantized as a whole differ with the text that is read at once. */
const tolerances = { plain: 2e-2, quantized: 0.2 }

const wholeQuantization = new Set(['DynamicQuantizeLinear', 'DynamicQuantizeMatMul', 'DynamicQuantizeLSTM'])

/**
 * @returns true when a text may be read in pieces of any length, false when only token by token
 * @throws KvasirError `unsupported` when a prompt means something else than its tokens one by one
 */
export async function readsInPieces(
  model: Pick<CausalLM, 'createCache' | 'forward' | 'vocabSize'>,
  { ends, model: { graph } }: Pick<ModelSource, 'ends' | 'model'>,
): Promise<boolean> {
  const { states, reason = `it has the states ${states.map(({ past }) => past).join(', ')}` } = ends.alone!
  const tokens = [5, 3, 2, 7, 4, 6].map((token) => token % model.vocabSize)
  const read = async (pieces: readonly number[]): Promise<Float32Array> => {
    const cache = model.createCache()
    let done = 0
    let logits = new Float32Array()
    for (const length of pieces) {
      const result = await model.forward([{ cache, tokens: tokens.slice(done, done + length) }])
      logits = result.data as Float32Array<ArrayBuffer>
      done += length
    }
    cache.dispose()
    return logits
  }
  const single = await read(divisions.single)
  const isQuantized = graph!.node.some(({ opType = '' }) => wholeQuantization.has(opType))
  const tolerance = isQuantized ? tolerances.quantized : tolerances.plain
  const isEqual = async (pieces: readonly number[]): Promise<boolean> => {
    return difference(await read(pieces), single) <= tolerance
  }
  if (!(await isEqual(divisions.whole))) {
    const message = `expected a text that is read at once to give the logits of its tokens one by one, got others`
    throw new KvasirError('unsupported', 'onnx', `${message}: ${reason}`)
  }
  return await isEqual(divisions.pieces)
}

/** The largest difference, over the range of `expected`; NaN where one of them is NaN. */
function difference(actual: Float32Array, expected: Float32Array): number {
  let [least, most, worst] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 0]
  for (const [i, value] of expected.entries()) {
    least = Math.min(least, value)
    most = Math.max(most, value)
    worst = Math.max(worst, Math.abs(value - actual[i]!))
  }
  return worst / (most - least || 1)
}
