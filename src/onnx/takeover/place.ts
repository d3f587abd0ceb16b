/** Puts kvasir.Attention nodes in the place of what the patterns have found. */
import type { AttentionNode } from '../attention-node.ts'
import { attentionAttributes, attentionInputs } from '../attention-node.ts'
import { dataTypes, type OnnxNode } from '../schema.ts'
import { intsAttribute } from './attributes.ts'
import type { FoundAttention, Rows } from './contract.ts'
import type { GraphEditor } from './editor.ts'
import { refuse } from './refuse.ts'
import type { Rule } from './visibility.ts'

/** Heads and tokens change places. */
const swap = [0, 2, 1, 3]

export interface Placing {
  readonly layer: number
  readonly rule: Rule
  /** Name of the rotation, see `AttentionNode.rotary`. */
  readonly rotary: string
  /** Layer whose keys and values are read. */
  readonly sharesKeyValueWith?: number
}

/** Replaces one found attention; see `attention-node.ts` for what comes. */
export function placeAttention(editor: GraphEditor, found: FoundAttention, placing: Placing): void {
  const nodes: OnnxNode[] = [...(found.before ?? [])]
  const { anchor, numHeads, numKvHeads, headDim, valueDim } = found
  for (const [name, size] of Object.entries({ numHeads, numKvHeads, headDim, valueDim })) {
    if (!Number.isInteger(size) || size < 1) throw refuse(anchor, `expected an integer for its ${name}, got ${size}`)
  }
  const type = editor.fact(anchor.input[0] ?? '').type ?? dataTypes.float
  const rows = (given: Rows, heads: number, size: number): string => {
    if (given.isRowPerHead) {
      const name = add(nodes, editor.node('Reshape', [given.name, editor.integers([1, -1, heads * size])]))
      return asRows(editor, { ...given, name }, editor.fact(given.name).type ?? type, nodes)
    }
    if (!given.hasNoBatch) return asRows(editor, given, type, nodes)
    const sizes = given.isTransposed ? [1, heads, size, -1] : [1, heads, -1, size]
    const name = add(nodes, editor.node('Reshape', [given.name, editor.integers(sizes)]))
    return asRows(editor, { ...given, name }, editor.fact(given.name).type ?? type, nodes)
  }
  const input = {
    query: rows(found.query, numHeads, headDim),
    ...(found.key &&
      found.value && {
        key: rows(found.key, numKvHeads, headDim),
        value: rows(found.value, numKvHeads, valueDim),
      }),
    ...(found.sinkLogits && { sinkLogits: found.sinkLogits }),
  }
  const { window: own, softcap } = found
  const windows = [own, placing.rule.window].filter((value) => value !== undefined)
  const scale = scaleOf(found, placing.rule)
  const attention: Omit<AttentionNode, 'name' | 'output'> = {
    ...input,
    layer: placing.layer,
    ...{ numHeads, numKvHeads, headDim, valueDim },
    ...(scale !== undefined && { scale }),
    ...(softcap !== undefined && { softcap }),
    ...(windows.length && { window: Math.min(...windows) }),
    ...(placing.rule.alibi && { alibi: true }),
    rotary: placing.rotary,
    ...(placing.sharesKeyValueWith !== undefined && { sharesKeyValueWith: placing.sharesKeyValueWith }),
  }
  const { output } = found
  const isPlain = !output.isHeadsFirst && !output.isRowPerHead && type === dataTypes.float
  const node = editor.node(
    'Attention',
    attentionInputs(attention).map((name) => name ?? ''),
    {
      domain: 'kvasir',
      attributes: attentionAttributes(attention),
      ...(isPlain && { output: output.name }),
    },
  )
  editor.replace(anchor, [
    ...nodes,
    { ...node, name: anchor.name ?? '' },
    ...(isPlain ? [] : backTo(editor, found, node.output[0]!, type)),
  ])
}

/** Factor of q . k; undefined where it is 1 / sqrt(D). */
function scaleOf({ scale, headDim, visibility }: FoundAttention, rule: Rule): number | undefined {
  if (visibility?.kind !== 'probabilities') return scale
  const product = (rule.scale ?? 1) * (scale ?? 1)
  return Math.abs(product * Math.sqrt(headDim) - 1) < 1e-5 ? undefined : product
}

/** A value as rows of tokens in f32, by nodes that are added to `nodes`. */
function asRows(
  editor: GraphEditor,
  { name, isHeadsFirst, isTransposed }: Rows,
  type: number,
  nodes: OnnxNode[],
): string {
  let rows = name
  if (isHeadsFirst) {
    const perm = isTransposed ? [0, 3, 1, 2] : swap
    const producer = isTransposed ? undefined : editor.producer(name)
    const isSwap = producer?.opType === 'Transpose' && String(intsAttribute(producer, 'perm')) === String(swap)
    if (isSwap) rows = producer.input[0]!
    else rows = add(nodes, editor.node('Transpose', [name], { attributes: { perm: { ints: perm } } }))
  }
  // What the pattern has put in front is of the type of the node's own inputs.
  if ((editor.fact(name).type ?? type) === dataTypes.float) return rows
  return add(nodes, editor.node('Cast', [rows], { attributes: { to: { int: dataTypes.float } } }))
}

/** From rows in f32 to what the graph goes on with. */
function backTo(editor: GraphEditor, { output, numHeads, valueDim }: FoundAttention, rows: string, type: number) {
  const nodes: OnnxNode[] = []
  let value = rows
  const last = (name: string): { output?: string } => (name === 'last' ? { output: output.name } : {})
  if (type !== dataTypes.float) {
    const attributes = { to: { int: type } }
    const isLast = !output.isHeadsFirst && !output.isRowPerHead
    value = add(nodes, editor.node('Cast', [value], { attributes, ...last(isLast ? 'last' : '') }))
  }
  if (output.isRowPerHead) {
    add(nodes, editor.node('Reshape', [value, editor.integers([1, -1, valueDim])], { output: output.name }))
  }
  if (output.isHeadsFirst) {
    value = add(nodes, editor.node('Reshape', [value, editor.integers([1, -1, numHeads, valueDim])]))
    const isLast = !output.hasNoBatch
    const attributes = { perm: { ints: swap } }
    value = add(nodes, editor.node('Transpose', [value], { attributes, ...last(isLast ? 'last' : '') }))
    if (!isLast) {
      const sizes = editor.integers([numHeads, -1, valueDim])
      add(nodes, editor.node('Reshape', [value, sizes], { output: output.name }))
    }
  }
  return nodes
}

function add(nodes: OnnxNode[], node: OnnxNode): string {
  nodes.push(node)
  return node.output[0]!
}
