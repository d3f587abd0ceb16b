/**
 * com.microsoft MultiHeadAttention with flat inputs: as many KV heads as heads. Causal either by itself
 * (`unidirectional`) or by its `attention_bias`, whose meaning is learned.
 */
import type { OnnxNode } from '../../schema.ts'
import { floatAttribute, intAttribute } from '../attributes.ts'
import type { FoundAttention, Pattern, Rows } from '../contract.ts'
import type { GraphEditor } from '../editor.ts'
import { describeEach, refuse } from '../refuse.ts'
import { rotationInFront } from '../rotation.ts'
import { checkPadding, flat, inputAt, lastSize, refuseInputs, refuseOutput, requiredInt, stateOf } from './inputs.ts'

export const multiHead: Pattern = {
  find: (editor, refused) => describeEach(editor.nodes.filter(isMultiHead), (node) => describe(editor, node), refused),
}

function isMultiHead({ opType, domain }: OnnxNode): boolean {
  return opType === 'MultiHeadAttention' && domain === 'com.microsoft'
}

function describe(editor: GraphEditor, node: OnnxNode): FoundAttention {
  const numHeads = requiredInt(node, 'num_heads')
  refuseInputs(node, { 8: 'a shared buffer of past keys', 9: 'a cache indirection' })
  refuseOutput(editor, node, 3, 'its scores')
  checkPadding(editor, node, 4)
  const names = [0, 1, 2].map((index) => inputAt(node, index))
  if (!names.every((name) => name !== undefined)) throw refuse(node, 'its projections are packed')
  const [query, key, value] = names as [string, string, string]
  if (names.some((name) => editor.fact(name!).dims && editor.fact(name!).dims!.length !== 3)) {
    throw refuse(node, 'its projections are packed, or keys of another text')
  }
  const bias = inputAt(node, 5)
  const isCausal = intAttribute(node, 'unidirectional') === 1
  if (!bias && !isCausal) throw refuse(node, 'it is not causal')
  const sizes = [query, key, value].map((name) => lastSize(editor, node, name))
  if (sizes[0] !== sizes[1]) throw refuse(node, `expected keys as wide as queries, got ${sizes[1]} and ${sizes[0]}`)
  const added = addBias(editor, node, [query, key, value], sizes)
  const front = added.before.length ? undefined : rotationInFront(editor, query, key)
  return {
    kind: 'MultiHeadAttention',
    anchor: node,
    before: added.before,
    query: front ? flat(front.query) : added.rows[0]!,
    key: front ? flat(front.key) : added.rows[1]!,
    value: added.rows[2]!,
    rotary: front?.rotary,
    output: flat(node.output[0] ?? ''),
    numHeads,
    numKvHeads: numHeads,
    headDim: sizes[0]! / numHeads,
    valueDim: sizes[2]! / numHeads,
    scale: floatAttribute(node, 'scale') || undefined,
    state: stateOf(editor, node, inputAt(node, 6)),
    ...(bias && { visibility: { value: bias, kind: 'additive' as const, isCausalBesides: isCausal } }),
  }
}

/** The bias of all three projections lies in one vector. */
function addBias(editor: GraphEditor, node: OnnxNode, names: readonly string[], sizes: readonly number[]) {
  const bias = inputAt(node, 3)
  if (!bias) return { before: [], rows: names.map(flat) as Rows[] }
  const split = editor.node('Split', [bias, editor.integers(sizes)], { attributes: { axis: { int: 0 } } })
  split.output.push(editor.fresh('bias'), editor.fresh('bias'))
  const sums = names.map((name, i) => editor.node('Add', [name, split.output[i]!]))
  return { before: [split, ...sums], rows: sums.map(({ output }) => flat(output[0]!)) }
}
