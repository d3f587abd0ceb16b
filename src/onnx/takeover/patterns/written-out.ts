/**
 * Attention as single nodes: MatMul of queries and transposed keys, scale, mask, Softmax, MatMul with values, where
 * keys and values are a Concat of past and new ones, perhaps repeated for groups of heads. What happens between the
 * two products is not taken apart but learned from what it computes (`visibility.ts`), so any order of scale, mask,
 * soft cap and casts will do. Rotation stays in the graph: keys arrive rotated.
 */

import type { OnnxNode } from '../../schema.ts'
import { floatAttribute, intAttribute } from '../attributes.ts'
import type { FoundAttention, LogitLayout, Pattern, Rows } from '../contract.ts'
import type { GraphEditor } from '../editor.ts'
import { describeEach, refuse } from '../refuse.ts'
import { type Cached, followToCache, scalar } from './cached.ts'

export const writtenOut: Pattern = {
  find: (editor, refused) => {
    const states = new Set<string>()
    const nodes = editor.nodes.filter(({ opType }) => opType === 'Softmax')
    return describeEach(nodes, (node) => describe(editor, node, states), refused)
  },
}

/** Between the product of queries and keys and the Softmax, and between that and the product with values. */
const scoreNodes = new Set([
  'Add',
  'Sub',
  'Mul',
  'Div',
  'Where',
  'Tanh',
  'Cast',
  'Min',
  'Max',
  'Clip',
  'Identity',
  'Reshape',
])
const afterNodes = new Set(['Cast', 'Where', 'Dropout', 'Identity', 'Reshape'])
const products = new Set(['MatMul', 'FusedMatMul'])

async function describe(
  editor: GraphEditor,
  softmax: OnnxNode,
  states: Set<string>,
): Promise<FoundAttention | undefined> {
  const axis = intAttribute(softmax, 'axis') ?? -1
  const product = weighted(editor, softmax)
  const scores = scoreProduct(editor, softmax.input[0] ?? '')
  const rank = editor.fact(softmax.input[0] ?? '').dims?.length
  if (!product || !scores || (axis !== -1 && axis + 1 !== rank)) return undefined
  checkFused(scores, ['transA', 'transBatchA', 'transBatchB'])
  checkFused(product, ['transA', 'transB', 'transBatchA', 'transBatchB'])
  const turns = intAttribute(scores, 'transB') === 1
  const key = await followToCache(editor, scores.input[1] ?? '', !turns)
  const value = await followToCache(editor, product.input[1] ?? '', false)
  if (!key || !value) return undefined
  const valueFactor = value.factor * alphaOf(product)
  if (key.state !== value.state || valueFactor !== 1) {
    throw refuse(softmax, `its keys are of "${key.state}", its values ${valueFactor} times those of "${value.state}"`)
  }
  const query = queryOf(editor, scores.input[0] ?? '', key)
  const { numHeads, headDim, layout } = query
  const isFlat = layout === 'tokens'
  const { before, rows, numKvHeads, valueDim } = freshRows(editor, key, value)
  if (!numHeads || !headDim || !numKvHeads || !valueDim) throw refuse(softmax, 'the shapes around it are not known')
  if (numHeads !== numKvHeads && !isFlat && !(key.isRepeated && value.isRepeated)) {
    throw refuse(softmax, `expected keys repeated for ${numHeads} heads, got ${numKvHeads} of them`)
  }
  const isShared = states.has(key.state)
  states.add(key.state)
  const hasNoBatch = layout === 'heads without batch'
  return {
    kind: 'written out',
    anchor: product,
    query: { name: scores.input[0] ?? '', isHeadsFirst: !isFlat, hasNoBatch, isRowPerHead: isFlat },
    ...(isShared ? { sharesStateOf: key.state } : { before, ...rows }),
    output: { name: product.output[0] ?? '', isHeadsFirst: !isFlat, hasNoBatch, isRowPerHead: isFlat },
    ...{ numHeads, numKvHeads, headDim, valueDim },
    scale: key.factor * alphaOf(scores),
    softcap: await softcapOf(editor, softmax),
    state: key.state,
    visibility: { value: product.input[0] ?? '', kind: 'probabilities', logits: scores.output[0] ?? '', layout },
  }
}

interface Query {
  readonly numHeads: number | undefined
  readonly headDim: number | undefined
  readonly layout: LogitLayout
}

/** Queries are `[1, H, T, D]`, `[H, T, D]`, or, over the one head of a multi-query model, `[1, T * H, D]`. */
function queryOf(editor: GraphEditor, name: string, { fresh, numParts }: Cached): Query {
  const dims = editor.fact(name).dims
  const headDim = editor.size(name, -1)
  if (dims?.length !== 3) return { numHeads: editor.size(name, -3), headDim, layout: 'heads' }
  const rows = dims[1]
  const isTokens = rows?.c === 0 && rows.p === 0 && rows.t >= 1 && editor.size(name, 0) === 1
  const isOneHead = editor.fact(fresh).dims?.length === 3 && numParts > 1
  if (isTokens && isOneHead) return { numHeads: rows.t, headDim, layout: 'tokens' }
  return { numHeads: editor.size(name, -3), headDim, layout: 'heads without batch' }
}

/** FusedMatMul turns its inputs and multiplies: what is not taken over must not be there. */
function checkFused(product: OnnxNode, attributes: readonly string[]): void {
  const turned = attributes.find((name) => (intAttribute(product, name) ?? 0) !== 0)
  if (turned !== undefined) throw refuse(product, `expected its inputs as they lie, got ${turned}`)
}

function alphaOf(product: OnnxNode): number {
  return floatAttribute(product, 'alpha') ?? 1
}

/** New keys and values, where they lie in one tensor after the nodes that take it apart. */
function freshRows(editor: GraphEditor, key: Cached, value: Cached) {
  const rows = ({ fresh, isTransposed }: Cached): Rows => {
    const hasNoBatch = editor.fact(fresh).dims?.length === 3
    return { name: fresh, isHeadsFirst: true, hasNoBatch, isTransposed }
  }
  if (key.fresh !== value.fresh) {
    const width = value.isTransposed ? -2 : -1
    const [numKvHeads, valueDim] = [editor.size(key.fresh, -3), editor.size(value.fresh, width)]
    return { before: [], rows: { key: rows(key), value: rows(value) }, numKvHeads, valueDim }
  }
  // One tensor `[1, T, 2 * D]` of a single head.
  const size = editor.size(key.fresh, -1)
  if (editor.fact(key.fresh).dims?.length !== 3 || size === undefined || key.part === value.part) {
    return { before: [], rows: {}, numKvHeads: undefined, valueDim: undefined }
  }
  const half = size / 2
  const split = editor.node('Split', [key.fresh, editor.integers([half, half])], { attributes: { axis: { int: -1 } } })
  split.output.push(editor.fresh('value'))
  const part = (index: number): Rows => ({ name: split.output[index]!, isHeadsFirst: false })
  return { before: [split], rows: { key: part(key.part), value: part(value.part) }, numKvHeads: 1, valueDim: half }
}

/** The product with values that follows a Softmax. */
function weighted(editor: GraphEditor, softmax: OnnxNode): OnnxNode | undefined {
  let value = softmax.output[0] ?? ''
  for (let steps = 0; steps < 6; steps++) {
    const consumers = editor.consumers(value)
    const product = consumers.find(({ opType = '', input }) => products.has(opType) && input[0] === value)
    if (product) return product
    // A softmax that is safe against rows without a key asks itself for NaN, hence the last of several.
    const next = consumers.findLast(({ opType }) => afterNodes.has(opType ?? ''))
    if (!next) return undefined
    value = next.output[0] ?? ''
  }
  return undefined
}

/** The product of queries and keys that a value comes from, by nodes that change logits one by one. */
function scoreProduct(editor: GraphEditor, value: string): OnnxNode | undefined {
  const open = [value]
  for (let steps = 0; open.length > 0 && steps < 64; steps++) {
    const node = editor.producer(open.pop()!)
    if (!node) continue
    const isVariable = node.input.every((name) => !editor.fact(name).isConstant)
    const rank = editor.fact(node.output[0] ?? '').dims?.length
    if (products.has(node.opType ?? '') && isVariable && (rank === 4 || rank === 3)) return node
    if (scoreNodes.has(node.opType ?? '')) open.push(...node.input.filter((name) => !editor.fact(name).isConstant))
  }
  return undefined
}

/** The constant that a Tanh on the way to the Softmax is multiplied with. */
async function softcapOf(editor: GraphEditor, softmax: OnnxNode): Promise<number | undefined> {
  const open = [softmax.input[0] ?? '']
  for (let steps = 0; open.length > 0 && steps < 64; steps++) {
    const name = open.pop()!
    const node = editor.producer(name)
    if (!node || !scoreNodes.has(node.opType ?? '')) continue
    if (node.opType === 'Tanh') {
      const [after] = editor.consumers(name)
      const factor = after?.opType === 'Mul' ? after.input.find((input) => editor.fact(input).isConstant) : undefined
      return factor === undefined ? 1 : await scalar(editor, factor)
    }
    open.push(...node.input.filter((input) => !editor.fact(input).isConstant))
  }
  return undefined
}
