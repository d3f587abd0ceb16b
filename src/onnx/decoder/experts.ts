/**
 * The cross-domain mixture of experts of Doge: an expert is one row of two tables, and the router picks rows as pairs
 * of keys, so that thousands of experts cost two short score lists.
 *
 * Scores of a token: two halves of `numKeys` numbers each; expert (i, j) scores x[i] + y[j], and the `perToken` best are
 * taken. Transformers reshapes the halves of several tokens at once in a way that mixes tokens up: what it computes for
 * a prompt depends on the prompt's length and on later tokens. What is here is what it computes for one token.
 */
import { activations, linear, lookUp } from '../blocks.ts'
import type { Dims, GraphBuilder } from '../builder.ts'
import { dataTypes } from '../schema.ts'

export interface ExpertSizes {
  readonly numExperts: number
  /** floor(sqrt(numExperts)) */
  readonly numKeys: number
  readonly perToken: number
}

/** Sum over the chosen experts e of routing_e * silu(down_e . x) * up_e, `[T, hiddenSize]`. */
export function addExperts(
  graph: GraphBuilder,
  x: string,
  prefix: string,
  sizes: ExpertSizes & { readonly hiddenSize: number },
): string {
  const { numExperts: rows, perToken, hiddenSize } = sizes
  const { experts, routing } = route(graph, x, prefix, sizes)
  const rowsOf = (table: string): string =>
    lookUp(graph, `${prefix}.${table}.weight`, experts, { rows, columns: hiddenSize, shape: ['T', perToken] })
  const column = reshape(graph, x, [0, hiddenSize, 1], ['T', hiddenSize, 1])
  const products = graph.node('MatMul', [rowsOf('down_embed'), column], { shape: ['T', perToken, 1] })
  const shape = ['T', perToken] as const
  const activated = activations.silu(graph, reshape(graph, products, [0, perToken], shape), shape)
  const weighted = graph.node('Mul', [activated, routing], { shape })
  const row = reshape(graph, weighted, [0, 1, perToken], ['T', 1, perToken])
  const mixed = graph.node('MatMul', [row, rowsOf('up_embed')], { shape: ['T', 1, hiddenSize] })
  return reshape(graph, mixed, [0, hiddenSize], ['T', hiddenSize])
}

/** The chosen experts and their weights, both `[T, perToken]`. */
function route(
  graph: GraphBuilder,
  x: string,
  prefix: string,
  { numKeys, perToken, hiddenSize }: ExpertSizes & { readonly hiddenSize: number },
): { experts: string; routing: string } {
  const size = { inFeatures: hiddenSize, outFeatures: 2 * numKeys, bias: false }
  const halves = reshape(graph, linear(graph, x, `${prefix}.router_gate`, size), [0, 2, numKeys], ['T', 2, numKeys])
  const best = Math.min(numKeys, perToken) // a pair among the best has both its keys among the best
  const keys = topK(graph, halves, best, ['T', 2, best])
  const pairs = ['T', best * best] as const
  const half = (value: string, index: number, dataType: number, shape: readonly number[]): string => {
    const part = typed(graph, 'Gather', [value, graph.integers([index])], dataType, ['T', 1, best], {
      axis: { int: 1 },
    })
    return typed(graph, 'Reshape', [part, graph.integers([0, ...shape])], dataType, ['T', ...shape])
  }
  const pairwise = (opType: string, a: string, b: string, dataType: number): string => {
    const table = typed(graph, opType, [a, b], dataType, ['T', best, best])
    return typed(graph, 'Reshape', [table, graph.integers([0, best * best])], dataType, pairs)
  }
  const { float, int64 } = dataTypes
  const rowOf = half(keys.indices, 0, int64, [best, 1])
  const start = typed(graph, 'Mul', [rowOf, graph.integers([numKeys])], int64, ['T', best, 1])
  const ids = pairwise('Add', start, half(keys.indices, 1, int64, [1, best]), int64)
  const sums = pairwise('Add', half(keys.values, 0, float, [best, 1]), half(keys.values, 1, float, [1, best]), float)
  const chosen = topK(graph, sums, perToken, ['T', perToken])
  const attributes = { axis: { int: 1 } }
  return {
    experts: typed(graph, 'GatherElements', [ids, chosen.indices], int64, ['T', perToken], attributes),
    routing: graph.node('Softmax', [chosen.values], { attributes: { axis: { int: -1 } }, shape: ['T', perToken] }),
  }
}

function topK(graph: GraphBuilder, x: string, count: number, shape: Dims): { values: string; indices: string } {
  const outputs = [dataTypes.float, dataTypes.int64].map((dataType) => ({ dataType, shape }))
  const [values, indices] = graph.nodeWith('TopK', [x, graph.integers([count])], { outputs })
  return { values: values!, indices: indices! }
}

function typed(
  graph: GraphBuilder,
  opType: string,
  inputs: readonly string[],
  dataType: number,
  shape: Dims,
  attributes = {},
): string {
  return graph.nodeWith(opType, inputs, { attributes, outputs: [{ dataType, shape }] })[0]!
}

function reshape(graph: GraphBuilder, x: string, target: readonly number[], shape: Dims): string {
  return graph.node('Reshape', [x, graph.integers(target)], { shape })
}
