/**
 * The node that graphs are cut at: op `Attention` of domain `kvasir`. Its inputs are query `[T, H, D]` and key
 * `[T, K, D]`, both before rotation, value `[T, K * E]`, importance `[T, K]` (optional) and sink logits `[H]`
 * (optional, a constant); its output is `[T, H * E]`. A leading axis of 1 changes nothing.
 */
import { describe } from '../tensor/check.ts'
import type { AttributeValue, GraphBuilder } from './builder.ts'
import type { OnnxNode } from './schema.ts'
import { invalidFile } from './wire.ts'

export interface AttentionNode {
  readonly name: string
  readonly query: string
  /** Absent, as value and importance are, where `sharesKeyValueWith` is given. */
  readonly key?: string
  readonly value?: string
  readonly importance?: string
  /** `[H]`, a constant: the logit of a virtual key whose value is zero. */
  readonly sinkLogits?: string
  readonly output: string
  readonly layer: number
  readonly numHeads: number
  readonly numKvHeads: number
  readonly headDim: number
  /** E (default: headDim). */
  readonly valueDim?: number
  /** Factor of q . k (default: 1 / sqrt(D)). */
  readonly scale?: number
  /** Logits become softcap * tanh(logit / softcap). */
  readonly softcap?: number
  /** Keys that a query sees, itself included (default: all before it). */
  readonly window?: number
  readonly alibi?: boolean
  /** In a published graph, the key of the table that turns queries and keys, or `none`; else config.json says it. */
  readonly rotary?: string
  /** The layer whose keys and values this one reads, instead of having its own. */
  readonly sharesKeyValueWith?: number
}

const kvasirDomain = 'kvasir'

/** Node attributes and the fields that they hold. */
const attributeNames = {
  layer: 'layer',
  numHeads: 'num_heads',
  numKvHeads: 'kv_num_heads',
  headDim: 'head_dim',
  valueDim: 'value_dim',
  scale: 'scale',
  softcap: 'softcap',
  window: 'window',
  alibi: 'alibi',
  rotary: 'rotary',
  sharesKeyValueWith: 'shares_key_value_with',
} as const

export function isAttention(node: OnnxNode): boolean {
  return node.domain === kvasirDomain && node.opType === 'Attention'
}

/** Adds an attention node and returns its output. */
export function addAttention(graph: GraphBuilder, attention: Omit<AttentionNode, 'name' | 'output'>): string {
  const { layer, numHeads, headDim, valueDim = headDim } = attention
  return graph.node('Attention', attentionInputs(attention), {
    domain: kvasirDomain,
    name: `attention.${layer}`,
    attributes: attentionAttributes(attention),
    shape: ['T', numHeads * valueDim],
  })
}

/** The inputs of an attention node, in order. */
export function attentionInputs(attention: Omit<AttentionNode, 'name' | 'output'>): (string | undefined)[] {
  const { query, key, value, importance, sinkLogits } = attention
  return [query, key, value, importance, sinkLogits]
}

/** The attributes of an attention node. */
export function attentionAttributes(attention: Omit<AttentionNode, 'name' | 'output'>): Record<string, AttributeValue> {
  const result: Record<string, AttributeValue> = {}
  for (const [field, name] of Object.entries(attributeNames)) {
    const value = attention[field as keyof typeof attributeNames]
    if (value === undefined) continue
    if (typeof value === 'string') result[name] = { string: value }
    else if (field === 'scale' || field === 'softcap') result[name] = { float: Number(value) }
    else result[name] = { int: Number(value) }
  }
  return result
}

/** @throws KvasirError `invalid-file` when inputs, outputs or attributes are missing */
export function parseAttention(node: OnnxNode): AttentionNode {
  const name = node.name ?? ''
  const [query, key, value, importance, sinkLogits] = node.input
  const [output] = node.output
  const sharesKeyValueWith = optionalInteger(node, 'sharesKeyValueWith', 0)
  const hasKeyValue = Boolean(key && value)
  if (!query || hasKeyValue === (sharesKeyValueWith !== undefined) || !output) {
    throw invalidFile(`expected query, key, value and an output at attention node "${name}"`)
  }
  const headDim = integer(node, 'headDim', 1)
  const optional = {
    scale: positive(node, 'scale'),
    softcap: positive(node, 'softcap'),
    window: optionalInteger(node, 'window', 1),
    alibi: optionalInteger(node, 'alibi', 0) ? true : undefined,
    rotary: text(node, 'rotary'),
    sharesKeyValueWith,
    ...(hasKeyValue && { key, value, importance: importance || undefined }),
    sinkLogits: sinkLogits || undefined,
  }
  return {
    name,
    query,
    output,
    layer: integer(node, 'layer', 0),
    numHeads: integer(node, 'numHeads', 1),
    numKvHeads: integer(node, 'numKvHeads', 1),
    headDim,
    valueDim: optionalInteger(node, 'valueDim', 1) ?? headDim,
    ...(Object.fromEntries(Object.entries(optional).filter(([, given]) => given !== undefined)) as typeof optional),
  }
}

type Field = keyof typeof attributeNames

function find(node: OnnxNode, field: Field) {
  return node.attribute.find(({ name }) => name === attributeNames[field])
}

function optionalInteger(node: OnnxNode, field: Field, min: number): number | undefined {
  return find(node, field) ? integer(node, field, min) : undefined
}

function integer(node: OnnxNode, field: Field, min: number): number {
  const value = find(node, field)?.i
  if (typeof value === 'number' && value >= min) return value
  throw wrong(node, field, 'an integer', value)
}

function positive(node: OnnxNode, field: Field): number | undefined {
  const value = find(node, field)?.f
  if (value === undefined || (value > 0 && value < Number.POSITIVE_INFINITY)) return value
  throw wrong(node, field, 'a number above 0', value)
}

function text(node: OnnxNode, field: Field): string | undefined {
  const bytes = find(node, field)?.s
  return bytes && new TextDecoder().decode(bytes)
}

function wrong(node: OnnxNode, field: Field, expected: string, value: unknown) {
  const attribute = attributeNames[field]
  return invalidFile(`expected ${expected} for ${attribute} of attention node "${node.name}", got ${describe(value)}`)
}
