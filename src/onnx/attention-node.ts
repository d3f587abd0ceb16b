/**
 * The node that graphs are cut at: op `Attention` of domain `kvasir`. Its inputs are query `[T, H, D]` and key
 * `[T, K, D]`, both before rotation, value `[T, K * E]`, and importance `[T, K]` (optional); its output is `[T, H * E]`.
 */
import { describe } from '../tensor/check.ts'
import type { GraphBuilder } from './builder.ts'
import type { OnnxNode } from './schema.ts'
import { invalidFile } from './wire.ts'

export interface AttentionNode {
  readonly name: string
  readonly query: string
  readonly key: string
  readonly value: string
  readonly importance?: string
  readonly output: string
  readonly layer: number
  readonly numHeads: number
  readonly numKvHeads: number
  readonly headDim: number
}

const kvasirDomain = 'kvasir'

export function isAttention(node: OnnxNode): boolean {
  return node.domain === kvasirDomain && node.opType === 'Attention'
}

/** Adds an attention node and returns its output. */
export function addAttention(graph: GraphBuilder, attention: Omit<AttentionNode, 'name' | 'output'>): string {
  const { query, key, value, importance, layer, numHeads, numKvHeads, headDim } = attention
  return graph.node('Attention', [query, key, value, importance], {
    domain: kvasirDomain,
    name: `attention.${layer}`,
    attributes: {
      layer: { int: layer },
      num_heads: { int: numHeads },
      kv_num_heads: { int: numKvHeads },
      head_dim: { int: headDim },
    },
    shape: ['T', numHeads * headDim],
  })
}

/** @throws KvasirError `invalid-file` when inputs, outputs or attributes are missing */
export function parseAttention(node: OnnxNode): AttentionNode {
  const name = node.name ?? ''
  const [query, key, value, importance] = node.input
  const [output] = node.output
  if (!query || !key || !value || !output) {
    throw invalidFile(`expected query, key, value and an output at attention node "${name}"`)
  }
  return {
    name,
    query,
    key,
    value,
    ...(importance && { importance }),
    output,
    layer: integer(node, 'layer', 0),
    numHeads: integer(node, 'num_heads', 1),
    numKvHeads: integer(node, 'kv_num_heads', 1),
    headDim: integer(node, 'head_dim', 1),
  }
}

function integer(node: OnnxNode, attribute: string, min: number): number {
  const value = node.attribute.find(({ name }) => name === attribute)?.i
  if (typeof value === 'number' && value >= min) return value
  throw invalidFile(`expected an integer for ${attribute} of attention node "${node.name}", got ${describe(value)}`)
}
