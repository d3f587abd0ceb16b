/** The blocks that decoder architectures share, as a few nodes each. Values are `[T, features]` f32. */
import type { GraphBuilder } from './builder.ts'

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

/** x / sqrt(mean(x^2) + epsilon) * weight over the last axis; `shape` is that of x. */
export function rmsNorm(
  graph: GraphBuilder,
  x: string,
  weight: string,
  options: { readonly shape: readonly (number | 'T')[]; readonly epsilon: number },
): string {
  return graph.node('SimplifiedLayerNormalization', [x, graph.weight(weight, [options.shape.at(-1) as number])], {
    name: weight,
    attributes: { axis: { int: -1 }, epsilon: { float: options.epsilon } },
    shape: options.shape,
  })
}

/** `[T, heads * headDim]` seen as `[T, heads, headDim]`. */
export function splitHeads(graph: GraphBuilder, x: string, heads: number, headDim: number): string {
  const shape = graph.integers([0, heads, headDim]) // 0 keeps T
  return graph.node('Reshape', [x, shape], { shape: ['T', heads, headDim] })
}

/** down(silu(gate(x)) * up(x)), the feed-forward block of the Llama family. */
export function swiGlu(
  graph: GraphBuilder,
  x: string,
  prefix: string,
  options: { readonly hiddenSize: number; readonly intermediateSize: number; readonly bias: boolean },
): string {
  const { hiddenSize, intermediateSize, bias } = options
  const wide = { inFeatures: hiddenSize, outFeatures: intermediateSize, bias }
  const shape = ['T', intermediateSize] as const
  const gate = linear(graph, x, `${prefix}.gate_proj`, wide)
  const up = linear(graph, x, `${prefix}.up_proj`, wide)
  const silu = graph.node('Mul', [gate, graph.node('Sigmoid', [gate], { shape })], { shape })
  const product = graph.node('Mul', [silu, up], { shape })
  const narrow = { inFeatures: intermediateSize, outFeatures: hiddenSize, bias }
  return linear(graph, product, `${prefix}.down_proj`, narrow)
}

/** Rows of the embedding; 16-bit rows are widened after the lookup, so the table itself is never copied. */
export function embed(graph: GraphBuilder, tokens: string, name: string, shape: readonly [number, number]): string {
  const { raw, dtype } = graph.rawWeight(name, shape)
  const rows = graph.node('Gather', [raw, tokens], { name, shape: ['T', shape[1]] })
  return dtype === 'F32' ? rows : graph.toFloat(rows, ['T', shape[1]])
}
