/**
 * What a model does with the tokens of a text: for each layer and KV head, features of each token (as scorers see them)
 * and the attention it gets from later tokens.
 */
import type { NewTokens } from '../../src/cache/contract.ts'
import type { Kernels } from '../../src/kernels/index.ts'
import { countFeatures, type KeyRotation, readFeatures } from '../../src/policies/scorer/features.ts'
import type { CausalLM } from '../../src/runtime/contract.ts'
import type { Passage } from '../passages.ts'
import { type Stretch, WeighingCache, type WeighingLayer } from './weighing-cache.ts'

/** One KV head of one layer over one text of N tokens. */
export interface HeadView {
  readonly layer: number
  readonly head: number
  /** N */
  readonly numTokens: number
  /** Tokens that are read before the continuations: what may be kept is chosen among these. */
  readonly contextTokens: number
  /** F */
  readonly numFeatures: number
  readonly rotation: KeyRotation
  /** As `ScoreTokens` takes them: all heads of the layer, all tokens. */
  readonly tokens: NewTokens
  /** Writes the features of a token. */
  features(token: number, out: Float32Array): void
  /** Attention that tokens got from the queries of a stretch. */
  readonly stretches: readonly (Omit<Stretch, 'masses'> & { readonly masses: Float32Array })[]
  /** G */
  readonly group: number
}

/** Text and continuations as one sequence. */
export function sequenceOf({ context, continuations }: Passage): Int32Array {
  return Int32Array.from([...context, ...continuations.flatMap(({ prompt, answer }) => [...prompt, ...answer])])
}

/**
 * Reads a passage and shows every head whose layer has no window of its own, in order.
 * @throws KvasirError `aborted` when the signal fires
 */
export async function observe(
  model: CausalLM,
  kernels: Kernels,
  passage: Passage,
  visit: (head: HeadView) => void,
  options: { readonly signal?: AbortSignal | undefined; readonly onPrefill?: (tokens: number) => void } = {},
): Promise<void> {
  const sequence = sequenceOf(passage)
  const cache = new WeighingCache(kernels, model.shape, sequence.length)
  await model.prefill(cache, sequence, options)
  for (const [index, layer] of cache.layers.entries()) {
    if (layer.shape.window !== undefined) continue
    for (let head = 0; head < layer.shape.numKvHeads; head++) visit(viewOf(layer, index, head, passage.context.length))
  }
}

function viewOf(layer: WeighingLayer, index: number, head: number, contextTokens: number): HeadView {
  const { capacity: N, keys, values, importance, stretches, rotary } = layer
  const { numHeads, numKvHeads, headDim, valueDim } = layer.shape
  const rotation = { pairs: rotary?.pairs ?? 0, isInterleaved: rotary?.isInterleaved ?? false }
  const sizes = { layer: index, numTokens: N, numKvHeads, headDim, valueDim, firstPosition: 0 }
  const tokens: NewTokens = {
    ...sizes,
    key: keys,
    value: values,
    importance: importance && tokenMajor(importance, numKvHeads),
  }
  return {
    ...{ layer: index, head, numTokens: N, contextTokens, rotation, tokens, group: numHeads / numKvHeads },
    numFeatures: countFeatures(layer.shape, rotation),
    features: (token, out) => readFeatures(tokens, token, head, rotation, out),
    stretches: stretches.map((stretch) => ({ ...stretch, masses: stretch.masses.subarray(head * N, (head + 1) * N) })),
  }
}

/** `[K, N]` to `[N, K]`. */
function tokenMajor(values: Float32Array, numKvHeads: number): Float32Array {
  const N = values.length / numKvHeads
  return Float32Array.from(values, (_, i) => values[(i % numKvHeads) * N + Math.floor(i / numKvHeads)] as number)
}
