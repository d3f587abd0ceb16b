/** com.microsoft Attention (GPT-2 and its like): the projection of queries, keys and values is part of the node. */
import type { OnnxNode } from '../../schema.ts'
import { floatAttribute, intAttribute, intsAttribute } from '../attributes.ts'
import type { FoundAttention, Pattern } from '../contract.ts'
import type { GraphEditor } from '../editor.ts'
import { describeEach, refuse } from '../refuse.ts'
import { checkPadding, flat, inputAt, lastSize, refuseInputs, requiredInt } from './inputs.ts'

export const contribAttention: Pattern = {
  find: (editor, refused) =>
    describeEach(editor.nodes.filter(isContribAttention), (node) => describe(editor, node), refused),
}

function isContribAttention({ opType, domain }: OnnxNode): boolean {
  return opType === 'Attention' && domain === 'com.microsoft'
}

function describe(editor: GraphEditor, node: OnnxNode): FoundAttention {
  const numHeads = requiredInt(node, 'num_heads')
  refuseInputs(node, { 6: 'a shared buffer of past keys' })
  checkPadding(editor, node, 3)
  if (intAttribute(node, 'do_rotary') === 1) throw refuse(node, 'its rotation has no tables')
  const bias = inputAt(node, 5)
  const isCausal = intAttribute(node, 'unidirectional') === 1
  if (!isCausal && !bias) throw refuse(node, 'it is not causal')
  const [input, weight] = node.input as [string, string]
  const total = lastSize(editor, node, weight)
  const sizes = intsAttribute(node, 'qkv_hidden_sizes') ?? [total / 3, total / 3, total / 3]
  if (sizes[0] !== sizes[1]) throw refuse(node, `expected keys as wide as queries, got ${sizes[1]} and ${sizes[0]}`)
  const product = editor.node('MatMul', [input, weight])
  const vector = inputAt(node, 2)
  const projected = vector ? editor.node('Add', [product.output[0]!, vector]) : product
  const split = editor.node('Split', [projected.output[0]!, editor.integers(sizes)], {
    attributes: { axis: { int: -1 } },
  })
  split.output.push(editor.fresh('key'), editor.fresh('value'))
  return {
    kind: 'Attention (com.microsoft)',
    anchor: node,
    before: vector ? [product, projected, split] : [product, split],
    query: flat(split.output[0]!),
    key: flat(split.output[1]!),
    value: flat(split.output[2]!),
    output: flat(node.output[0] ?? ''),
    numHeads,
    numKvHeads: numHeads,
    headDim: sizes[0]! / numHeads,
    valueDim: sizes[2]! / numHeads,
    scale: floatAttribute(node, 'scale') || undefined,
    state: stateName(editor, node),
    ...(bias && { visibility: { value: bias, kind: 'additive' as const, isCausalBesides: isCausal } }),
  }
}

/** Its past `[2, B, H, P, D]` holds keys and values. */
function stateName(editor: GraphEditor, node: OnnxNode): string {
  const past = inputAt(node, 4)
  if (past && editor.isInput(past)) return past
  const pair = past ? editor.producer(past) : undefined
  const key = pair?.opType === 'Concat' ? pairInput(editor, pair.input[0] ?? '') : undefined
  if (key) return key
  throw refuse(node, `expected a past of the graph, got ${past ? `"${past}"` : 'none'}`)
}

/** The graph's input behind an Unsqueeze, where a graph with keys and values apart puts them together. */
function pairInput(editor: GraphEditor, name: string): string | undefined {
  const node = editor.producer(name)
  if (!node) return editor.isInput(name) ? name.replace(/[._]key$/, '') : undefined
  return node.opType === 'Unsqueeze' ? pairInput(editor, node.input[0] ?? '') : undefined
}
