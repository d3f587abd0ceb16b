/** What the functions of flash-attn without a cache come down to: sequences of queries, each with keys of its own. */
import type { Tensor } from 'onnxruntime-common'
import type { FloatArray, FloatType, KeyValueSegment } from '../kernels/index.ts'
import { kernelsFor } from './backends.ts'
import { type AttentionState, allocateResults, attendEach, finish, type HeadSizes, toCall } from './core.ts'
import { checkFlashForm, type FlashOptions } from './flash-options.ts'

interface Queries extends HeadSizes {
  readonly storage: FloatType
  /** `[rows, H, D]`, all sequences end to end */
  readonly query: FloatArray
  /** Dims of the output, without the last two. */
  readonly tokens: readonly number[]
}

interface FlashSequence {
  /** Where its queries begin among all rows. */
  readonly firstRow: number
  readonly numTokens: number
  readonly numKeys: number
  readonly keys: Omit<KeyValueSegment, 'lengths'>
}

/** The last query of each sequence is at its last key. */
export async function attendSequences(
  options: FlashOptions,
  { storage, query, tokens, ...sizes }: Queries,
  sequences: readonly FlashSequence[],
): Promise<Tensor | AttentionState> {
  const form = checkFlashForm(options, { ...sizes, B: sequences.length })
  const kernels = kernelsFor(options)
  const rows = tokens.reduce((a, b) => a * b, 1)
  const results = allocateResults(storage, rows, sizes, options.returnLse)
  const calls = sequences.map(({ firstRow, numTokens, numKeys, keys }, b) => {
    const segment = { ...keys, lengths: new Int32Array(sizes.K).fill(numKeys) }
    return toCall(sizes, form, query, results, { b, firstRow, numTokens, firstPosition: numKeys - numTokens, segment })
  })
  await attendEach(kernels, calls)
  return finish(results, [...tokens, sizes.H, sizes.E])
}
