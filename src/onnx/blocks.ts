/** The blocks that decoder architectures share, as a few nodes each. Values are `[T, features]` f32. */
import type { Dims, GraphBuilder } from './builder.ts'

/** Sizes of a linear layer whose weight is `[outFeatures, inFeatures]`. */
export interface LinearOptions {
  readonly inFeatures: number
  readonly outFeatures: number
  readonly bias: boolean
}

/**
 * y = x W^T + b, `[T, outFeatures]`. Gemm with transB reads the weight as the checkpoint has it, in place: within 10%
 * of a MatMul on a transposed copy at every size measured (docs/decisions/0010-weights-in-place.md).
 */
export function linear(graph: GraphBuilder, x: string, prefix: string, options: LinearOptions): string {
  const { inFeatures, outFeatures, bias } = options
  const weight = graph.weight(`${prefix}.weight`, [outFeatures, inFeatures])
  return graph.node('Gemm', [x, weight, ...(bias ? [graph.weight(`${prefix}.bias`, [outFeatures])] : [])], {
    name: prefix,
    attributes: { transB: { int: 1 } },
    shape: ['T', outFeatures],
  })
}

/** Shape of x, and how its norm differs from the plain one. */
export interface NormOptions {
  readonly shape: Dims
  readonly epsilon: number
  /** Added to the weight: 1 in the Gemma family (default 0). */
  readonly offset?: number
}

/** x / sqrt(mean(x^2) + epsilon) * (weight + offset) over the last axis. */
export function rmsNorm(graph: GraphBuilder, x: string, weight: string, options: NormOptions): string {
  const { shape, epsilon, offset = 0 } = options
  const size = [shape.at(-1) as number]
  const stored = graph.weight(weight, size)
  const scale = offset === 0 ? stored : graph.node('Add', [stored, graph.number(offset)], { shape: size })
  return graph.node('SimplifiedLayerNormalization', [x, scale], {
    name: weight,
    attributes: { axis: { int: -1 }, epsilon: { float: epsilon } },
    shape,
  })
}

/** `[T, heads * headDim]` seen as `[T, heads, headDim]`. */
export function splitHeads(graph: GraphBuilder, x: string, heads: number, headDim: number): string {
  const shape = graph.integers([0, heads, headDim]) // 0 keeps T
  return graph.node('Reshape', [x, shape], { shape: ['T', heads, headDim] })
}

type Activation = (graph: GraphBuilder, x: string, shape: Dims) => string

const geluTanh: Activation = (graph, x, shape) =>
  graph.node('Gelu', [x], { attributes: { approximate: { string: 'tanh' } }, shape })

/** By the names that config.json gives them. */
export const activations = {
  silu: (graph, x, shape) => graph.node('Mul', [x, graph.node('Sigmoid', [x], { shape })], { shape }),
  gelu: (graph, x, shape) => graph.node('Gelu', [x], { shape }),
  gelu_pytorch_tanh: geluTanh,
  gelu_new: geluTanh,
  relu: (graph, x, shape) => graph.node('Relu', [x], { shape }),
} as const satisfies Record<string, Activation>

export type ActivationName = keyof typeof activations

export const activationNames = Object.keys(activations) as ActivationName[]

export interface FeedForwardOptions {
  readonly hiddenSize: number
  readonly intermediateSize: number
  readonly bias: boolean
  readonly activation: ActivationName
}

/** down(activation(gate(x)) * up(x)), the feed-forward block of the Llama family. */
export function feedForward(graph: GraphBuilder, x: string, prefix: string, options: FeedForwardOptions): string {
  const { hiddenSize, intermediateSize, bias, activation } = options
  const wide = { inFeatures: hiddenSize, outFeatures: intermediateSize, bias }
  const shape = ['T', intermediateSize] as const
  const gate = linear(graph, x, `${prefix}.gate_proj`, wide)
  const up = linear(graph, x, `${prefix}.up_proj`, wide)
  const product = graph.node('Mul', [activations[activation](graph, gate, shape), up], { shape })
  const narrow = { inFeatures: intermediateSize, outFeatures: hiddenSize, bias }
  return linear(graph, product, `${prefix}.down_proj`, narrow)
}

/** cap * tanh(x / cap) */
export function softcap(graph: GraphBuilder, x: string, cap: number, shape: Dims): string {
  const bounded = graph.node('Tanh', [graph.node('Div', [x, graph.number(cap)], { shape })], { shape })
  return graph.node('Mul', [bounded, graph.number(cap)], { shape })
}

/** Rows of a table `[rows, columns]`; 16-bit rows are widened after the lookup, so the table itself is never copied. */
export function lookUp(graph: GraphBuilder, table: string, indices: string, options: LookUpOptions): string {
  const { rows, columns, shape } = options
  const { raw, dtype } = graph.rawWeight(table, [rows, columns])
  const found = graph.node('Gather', [raw, indices], { name: table, shape: [...shape, columns] })
  return dtype === 'F32' ? found : graph.toFloat(found, [...shape, columns])
}

export interface LookUpOptions {
  readonly rows: number
  readonly columns: number
  /** Of the indices. */
  readonly shape: Dims
}
