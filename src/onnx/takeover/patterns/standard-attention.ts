/** ai.onnx Attention (operator sets 23 and 24), with inputs `[1, T, H * D]` or `[1, H, T, D]`. */
import { dataTypes, type OnnxNode } from '../../schema.ts'
import { floatAttribute, intAttribute } from '../attributes.ts'
import type { FoundAttention, Pattern, Rows } from '../contract.ts'
import type { GraphEditor } from '../editor.ts'
import { describeEach, refuse } from '../refuse.ts'
import { rotationInFront } from '../rotation.ts'
import { flat, inputAt, lastSize, refuseInputs, refuseOutput, requiredInt, stateOf } from './inputs.ts'

export const standardAttention: Pattern = {
  find: (editor, refused) =>
    describeEach(editor.nodes.filter(isStandardAttention), (node) => describe(editor, node), refused),
}

function isStandardAttention({ opType, domain = '' }: OnnxNode): boolean {
  return opType === 'Attention' && (domain === '' || domain === 'ai.onnx')
}

function describe(editor: GraphEditor, node: OnnxNode): FoundAttention {
  refuseInputs(node, { 6: 'lengths of a cache outside the graph' })
  refuseOutput(editor, node, 3, 'its scores')
  const [query, key, value] = node.input as [string, string, string]
  const isHeadsFirst = rankOf(editor, node, query) === 4
  const layout = isHeadsFirst ? headsFirst(editor, node, query, key, value) : flatRows(editor, node, query, key, value)
  const front = isHeadsFirst ? undefined : rotationInFront(editor, query, key)
  const rows = (name: string): Rows => ({ name, isHeadsFirst })
  return {
    kind: 'Attention',
    anchor: node,
    query: front ? flat(front.query) : rows(query),
    key: front ? flat(front.key) : rows(key),
    value: rows(value),
    rotary: front?.rotary,
    output: rows(node.output[0] ?? ''),
    ...layout,
    scale: floatAttribute(node, 'scale') || undefined,
    softcap: floatAttribute(node, 'softcap') || undefined,
    ...window(node),
    state: stateOf(editor, node, inputAt(node, 4)),
    ...visibility(editor, node),
  }
}

function rankOf(editor: GraphEditor, node: OnnxNode, name: string): number {
  const rank = editor.fact(name).dims?.length
  if (rank === 3 || rank === 4) return rank
  throw refuse(node, `expected inputs of rank 3 or 4, got ${rank ?? 'an unknown one'}`)
}

function headsFirst(editor: GraphEditor, node: OnnxNode, query: string, key: string, value: string) {
  const [numHeads, numKvHeads] = [query, key].map((name) => editor.size(name, 1))
  if (!numHeads || !numKvHeads) throw refuse(node, 'the number of its heads is not known')
  const [headDim, valueDim] = [lastSize(editor, node, query), lastSize(editor, node, value)]
  return { numHeads, numKvHeads, headDim, valueDim }
}

function flatRows(editor: GraphEditor, node: OnnxNode, query: string, _key: string, value: string) {
  const [numHeads, numKvHeads] = [requiredInt(node, 'q_num_heads'), requiredInt(node, 'kv_num_heads')]
  const headDim = lastSize(editor, node, query) / numHeads
  return { numHeads, numKvHeads, headDim, valueDim: lastSize(editor, node, value) / numKvHeads }
}

/** Operator set 25: keys before the query itself. */
function window(node: OnnxNode): { window?: number } {
  const left = intAttribute(node, 'left_window_size') ?? -1
  if ((intAttribute(node, 'right_window_size') ?? -1) > 0) throw refuse(node, 'its window reaches into the future')
  return left >= 0 ? { window: left + 1 } : {}
}

function visibility(editor: GraphEditor, node: OnnxNode): Pick<FoundAttention, 'visibility'> {
  const mask = inputAt(node, 3)
  const isCausal = intAttribute(node, 'is_causal') === 1
  if (!mask && !isCausal) throw refuse(node, 'it is not causal')
  if (!mask) return {}
  const isBoolean = editor.fact(mask).type === dataTypes.bool
  return { visibility: { value: mask, kind: isBoolean ? 'boolean' : 'additive', isCausalBesides: isCausal } }
}
