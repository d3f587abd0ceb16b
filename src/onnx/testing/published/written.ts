/** Attention as single nodes, in the ways that torch exports of different models and times have it. */
import { dataTypes } from '../../schema.ts'
import { additiveMask, booleanMask } from './masks.ts'
import { type AttentionWriter, conv1d } from './scaffold.ts'
import { state, stepInputs } from './steps.ts'
import type { PublishedWriter } from './writer.ts'
import { inverseFrequencyTables, type LongRotary, rotate, slicedTables } from './written-positions.ts'

export interface WrittenOptions {
  /** `sliced`: tables of cosines, cut to the length so far and looked up by position (default: inverse frequencies). */
  readonly rotary?: 'sliced'
  /** LongRoPE: frequencies smaller by this factor in steps that reach beyond so many tokens, chosen by a Where. */
  readonly long?: LongRotary
  /** `eager`: MatMul, Div, Add; `sdpa`: roots of the scale on both sides, safe softmax. */
  readonly kind: 'eager' | 'sdpa'
  readonly softcap?: number
  /** Window of even layers. */
  readonly evenWindow?: number
  readonly scale?: number
  /** Layers from this one on read keys and values of the layer before it. */
  readonly sharedFrom?: number
  /** Something between the products that no attention does. */
  readonly isStrange?: boolean
}

const swap = { attributes: { perm: { ints: [0, 2, 1, 3] } } }

/** The Llama family: RoPE from inverse frequencies, repeated keys and values. */
export function llamaAttention(w: PublishedWriter, options: WrittenOptions): AttentionWriter {
  const { numHeads, numKvHeads, headDim, hiddenSize } = w.settings
  stepInputs(w, true)
  const rotary = options.rotary === 'sliced' ? slicedTables(w) : inverseFrequencyTables(w, options.long)
  const mask = additiveMask(w, 'causal')
  const windowed = options.evenWindow === undefined ? mask : additiveMask(w, 'causal', options.evenWindow)
  const kept = new Map<number, readonly [string, string]>()
  return (_, layer, x) => {
    const prefix = `model.layers.${layer}.self_attn`
    const heads = (name: string, count: number): string =>
      splitHeads(w, w.linear(x, `${prefix}.${name}`, hiddenSize, count * headDim), x, count)
    const query = rotate(w, heads('q_proj', numHeads), rotary)
    const isShared = options.sharedFrom !== undefined && layer >= options.sharedFrom
    const fresh = () => [rotate(w, heads('k_proj', numKvHeads), rotary), heads('v_proj', numKvHeads)] as const
    const [keys, values] = isShared ? kept.get(options.sharedFrom! - 1)! : appendPast(w, layer, ...fresh())
    kept.set(layer, [keys, values])
    const repeated = [keys, values].map((name) => repeatHeads(w, name, x)) as [string, string]
    const scores = product(w, query, repeated[0], options)
    const probabilities = softmax(w, scores, layer % 2 === 0 ? windowed : mask, options)
    return mergeHeads(w, w.node('MatMul', [probabilities, repeated[1]]), x)
  }
}

/** GPT-2 before fusion: one Gemm for all, a causal buffer that is sliced, Where instead of a sum. */
export function gptAttention(w: PublishedWriter): AttentionWriter {
  const { numHeads, headDim, hiddenSize, maxPositions } = w.settings
  const size = numHeads * headDim
  const cells = Array.from({ length: maxPositions ** 2 }, (_, i) => i % maxPositions <= Math.floor(i / maxPositions))
  const buffer = w.bools('transformer.h.bias', cells, [1, 1, maxPositions, maxPositions])
  const padding = paddingMask(w)
  return (_, layer, x) => {
    const all = conv1d(w, x, `transformer.h.${layer}.attn.c_attn`, hiddenSize, 3 * size)
    const parts = [`q${layer}`, `k${layer}`, `v${layer}`]
    w.node('Split', [all, w.integers([size, size, size])], parts, { attributes: { axis: { int: 2 } } })
    const [query, key, value] = parts.map((name) => splitHeads(w, name, x, numHeads)) as [string, string, string]
    const [keys, values] = appendPast(w, layer, key, value)
    const transposed = w.node('Transpose', [keys], undefined, { attributes: { perm: { ints: [0, 1, 3, 2] } } })
    const scaled = w.node('Div', [w.node('MatMul', [query, transposed]), w.floats([Math.sqrt(headDim)])])
    const [fresh, total] = [axisOf(w, query, 2), axisOf(w, keys, 2)]
    const rows = w.node('Slice', [buffer, w.node('Sub', [total, fresh]), total, w.integers([2]), w.integers([1])])
    const causal = w.node('Slice', [rows, w.integers([0]), total, w.integers([3]), w.integers([1])])
    const hidden = w.node('Where', [causal, scaled, w.floats([-3.4028234663852886e38])])
    const probabilities = w.node('Softmax', [w.node('Add', [hidden, padding])], undefined, {
      attributes: { axis: { int: -1 } },
    })
    return mergeHeads(w, w.node('MatMul', [probabilities, values]), x)
  }
}

/** BLOOM-like: no rotation, ALiBi from the cumulated mask, four axes. */
export function alibiAttention(w: PublishedWriter): AttentionWriter {
  const { numHeads, headDim, hiddenSize } = w.settings
  stepInputs(w, false, numHeads)
  const sum = w.node('CumSum', ['attention_mask', w.scalar(1)])
  const places = w.node('Mul', [w.node('Sub', [sum, w.integers([1])]), 'attention_mask'])
  const wide = w.node('Cast', [w.node('Unsqueeze', [places, w.integers([1, 2])])], undefined, {
    attributes: { to: { int: w.float } },
  })
  const slopes = Array.from({ length: numHeads }, (_, h) => 2 ** ((-8 * (h + 1)) / numHeads))
  const alibi = w.node('Mul', [w.floats(slopes, [1, numHeads, 1, 1]), wide])
  const visible = booleanMask(w)
  return (_, layer, x) => {
    const part = (name: string): string =>
      splitHeads(w, w.linear(x, `h.${layer}.${name}`, hiddenSize, numHeads * headDim, true), x, numHeads)
    const query = part('query')
    const [keys, values] = appendPast(w, layer, part('key'), part('value'))
    const transposed = w.node('Transpose', [keys], undefined, { attributes: { perm: { ints: [0, 1, 3, 2] } } })
    const scaled = w.node('Mul', [w.node('MatMul', [query, transposed]), w.floats([1 / Math.sqrt(headDim)])])
    const biased = w.node('Add', [scaled, alibi])
    const masked = w.node('Where', [visible, biased, w.floats([-3.4028234663852886e38])])
    const probabilities = w.node('Softmax', [masked], undefined, { attributes: { axis: { int: -1 } } })
    return mergeHeads(w, w.node('MatMul', [probabilities, values]), x)
  }
}

function appendPast(w: PublishedWriter, layer: number, key: string, value: string): [string, string] {
  const { past, present } = state(layer)
  const concat = { attributes: { axis: { int: -2 } } }
  return [
    w.node('Concat', [past[0]!, key], present[0]!, concat),
    w.node('Concat', [past[1]!, value], present[1]!, concat),
  ]
}

function axisOf(w: PublishedWriter, name: string, axis: number): string {
  const size = w.node('Gather', [w.node('Shape', [name]), w.scalar(axis)], undefined, {
    attributes: { axis: { int: 0 } },
  })
  return w.node('Unsqueeze', [size, w.integers([0])])
}

function shape(w: PublishedWriter, parts: readonly string[]): string {
  return w.node('Concat', parts, undefined, { attributes: { axis: { int: 0 } } })
}

/** `[B, S, n * D]` to `[B, n, S, D]`. */
function splitHeads(w: PublishedWriter, rows: string, x: string, count: number): string {
  const dims = shape(w, [axisOf(w, x, 0), axisOf(w, x, 1), w.integers([count]), w.integers([w.settings.headDim])])
  return w.node('Transpose', [w.node('Reshape', [rows, dims])], undefined, swap)
}

function mergeHeads(w: PublishedWriter, heads: string, x: string): string {
  const { numHeads, headDim } = w.settings
  const dims = shape(w, [axisOf(w, x, 0), axisOf(w, x, 1), w.integers([numHeads * headDim])])
  return w.node('Reshape', [w.node('Transpose', [heads], undefined, swap), dims])
}

/** repeat_kv: a new axis, Expand to a shape that is computed with a Where, and Reshape. */
function repeatHeads(w: PublishedWriter, name: string, x: string): string {
  const { numHeads, numKvHeads, headDim } = w.settings
  if (numHeads === numKvHeads) return name
  const [batch, total] = [axisOf(w, x, 0), axisOf(w, name, 2)]
  const parts = [batch, w.integers([numKvHeads]), w.integers([numHeads / numKvHeads]), total, w.integers([headDim])]
  const target = shape(w, parts)
  const ones = w.node('ConstantOfShape', [w.integers([5])], undefined, {})
  const filled = w.node('Add', [
    w.node('Cast', [ones], undefined, { attributes: { to: { int: dataTypes.int64 } } }),
    w.integers([1]),
  ])
  const minus = w.node('Mul', [filled, w.scalar(-1)])
  const chosen = w.node('Where', [w.node('Equal', [target, minus]), filled, target])
  const wide = w.node('Expand', [w.node('Unsqueeze', [name, w.integers([2])]), chosen])
  return w.node('Reshape', [wide, shape(w, [batch, w.integers([numHeads]), total, w.integers([headDim])])])
}

function product(w: PublishedWriter, query: string, keys: string, { kind, scale }: WrittenOptions): string {
  const { headDim } = w.settings
  const transposed = w.node('Transpose', [keys], undefined, { attributes: { perm: { ints: [0, 1, 3, 2] } } })
  const factor = scale ?? 1 / Math.sqrt(headDim)
  if (kind === 'eager') return w.node('Mul', [w.node('MatMul', [query, transposed]), w.floats([factor])])
  const root = w.node('Sqrt', [w.floats([factor])])
  return w.node('MatMul', [w.node('Mul', [query, root]), w.node('Mul', [transposed, root])])
}

function softmax(
  w: PublishedWriter,
  scores: string,
  mask: string,
  { kind, softcap, isStrange }: WrittenOptions,
): string {
  let logits = scores
  if (softcap !== undefined) {
    logits = w.node('Mul', [w.node('Tanh', [w.node('Div', [logits, w.floats([softcap])])]), w.floats([softcap])])
  }
  if (isStrange) logits = w.node('Mul', [logits, w.node('Tanh', [logits])])
  const masked = w.node('Add', [logits, mask])
  const probabilities = w.node('Softmax', [masked], undefined, { attributes: { axis: { int: -1 } } })
  if (kind === 'eager') return probabilities
  return w.node('Where', [w.node('IsNaN', [probabilities]), w.floats([0]), probabilities])
}

/** OPT: products of three axes, the scale on queries, positions from the cumulated mask. */
export function optAttention(w: PublishedWriter): AttentionWriter {
  const { numHeads, headDim, hiddenSize } = w.settings
  stepInputs(w, false, numHeads)
  const mask = additiveMask(w, 'causal')
  return (_, layer, x) => {
    const part = (name: string): string =>
      w.linear(x, `decoder.layers.${layer}.${name}`, hiddenSize, numHeads * headDim, true)
    const query = w.node('Mul', [part('q_proj'), w.floats([1 / Math.sqrt(headDim)])])
    const heads = (rows: string): string => splitHeads(w, rows, x, numHeads)
    const [keys, values] = appendPast(w, layer, heads(part('k_proj')), heads(part('v_proj')))
    const flat = (name: string): string =>
      w.node('Reshape', [name, shape(w, [w.integers([numHeads]), w.integers([-1]), w.integers([headDim])])])
    const transposed = w.node('Transpose', [flat(keys)], undefined, { attributes: { perm: { ints: [0, 2, 1] } } })
    const scores = w.node('MatMul', [flat(heads(query)), transposed])
    const [fresh, total] = [axisOf(w, x, 1), axisOf(w, keys, 2)]
    const wide = w.node('Reshape', [scores, shape(w, [axisOf(w, x, 0), w.integers([numHeads]), fresh, total])])
    const masked = w.node('Max', [w.node('Add', [wide, mask]), w.floats([-3.4028234663852886e38])])
    const narrow = w.node('Reshape', [masked, shape(w, [w.integers([numHeads]), fresh, total])])
    const probabilities = w.node('Softmax', [narrow], undefined, { attributes: { axis: { int: -1 } } })
    const product = w.node('MatMul', [probabilities, flat(values)])
    return mergeHeads(
      w,
      w.node('Reshape', [product, shape(w, [axisOf(w, x, 0), w.integers([numHeads]), fresh, w.integers([headDim])])]),
      x,
    )
  }
}

/** `[B, 1, 1, T]`: nothing for tokens, the least number for padding. */
function paddingMask(w: PublishedWriter): string {
  const wide = w.node('Cast', [w.node('Unsqueeze', ['attention_mask', w.integers([1, 2])])], undefined, {
    attributes: { to: { int: w.float } },
  })
  return w.node('Mul', [w.node('Sub', [w.floats([1]), wide]), w.floats([-3.4028234663852886e38])])
}
