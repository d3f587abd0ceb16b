/**
 * Attention as single nodes: MatMul of queries and transposed keys, scale, mask, Softmax, MatMul with values, where
 * keys and values are a Concat of past and new ones, perhaps repeated for groups of heads. What happens between the
 * two products is not taken apart but learned from what it computes (`visibility.ts`), so any order of scale, mask,
 * soft cap and casts will do. Rotation stays in the graph: keys arrive rotated.
 */

import { readNumbers } from '../../constants.ts'
import type { OnnxNode } from '../../schema.ts'
import { floatAttribute, intAttribute, intsAttribute } from '../attributes.ts'
import type { FoundAttention, Pattern } from '../contract.ts'
import type { GraphEditor } from '../editor.ts'
import { numberOf } from '../linear.ts'
import { describeEach, refuse } from '../refuse.ts'

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
  const [key, value] = [await follow(editor, scores.input[1] ?? ''), await follow(editor, product.input[1] ?? '')]
  if (!key || !value) return undefined
  if (key.state !== value.state || value.factor !== 1) {
    throw refuse(softmax, `its keys are of "${key.state}", its values ${value.factor} times those of "${value.state}"`)
  }
  const query = scores.input[0] ?? ''
  const hasNoBatch = editor.fact(query).dims?.length === 3
  const [numHeads, headDim] = [editor.size(query, -3), editor.size(query, -1)]
  const [numKvHeads, valueDim] = [editor.size(key.fresh, 1), editor.size(value.fresh, 3)]
  if (!numHeads || !headDim || !numKvHeads || !valueDim) throw refuse(softmax, 'the shapes around it are not known')
  if (numHeads !== numKvHeads && !(key.isRepeated && value.isRepeated)) {
    throw refuse(softmax, `expected keys repeated for ${numHeads} heads, got ${numKvHeads} of them`)
  }
  const isShared = states.has(key.state)
  states.add(key.state)
  return {
    kind: 'written out',
    anchor: product,
    query: { name: query, isHeadsFirst: true, hasNoBatch },
    ...(isShared
      ? { sharesStateOf: key.state }
      : { key: { name: key.fresh, isHeadsFirst: true }, value: { name: value.fresh, isHeadsFirst: true } }),
    output: { name: product.output[0] ?? '', isHeadsFirst: true, hasNoBatch },
    ...{ numHeads, numKvHeads, headDim, valueDim },
    scale: key.factor * (floatAttribute(scores, 'alpha') ?? 1),
    softcap: await softcapOf(editor, softmax),
    state: key.state,
    visibility: { value: product.input[0] ?? '', kind: 'probabilities', logits: scores.output[0] ?? '', hasNoBatch },
  }
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

interface Cached {
  /** `past_key_values.0` */
  readonly state: string
  /** New keys or values, `[1, K, T, D]`. */
  readonly fresh: string
  readonly isRepeated: boolean
  /** What keys are multiplied with after they were stored. */
  readonly factor: number
}

/** From what a product reads back to the Concat of past and new rows. */
async function follow(editor: GraphEditor, value: string): Promise<Cached | undefined> {
  let name = value
  let isRepeated = false
  let factor = 1
  for (let steps = 0; steps < 16; steps++) {
    const node = editor.producer(name)
    const [input = '', second = ''] = node?.input ?? []
    switch (node?.opType) {
      case 'Concat': {
        const state = concatState(editor, node)
        return state === undefined ? undefined : { state, fresh: second, isRepeated, factor }
      }
      case 'Mul': {
        const [variable, constant] = editor.fact(second).isConstant ? [input, second] : [second, input]
        const number = await scalar(editor, constant)
        if (number === undefined) return undefined
        factor *= number
        name = variable
        break
      }
      case 'Expand': {
        const dims = editor.fact(input).dims
        if (dims?.length !== 5 || numberOf(dims[2]) !== 1) return undefined // heads repeated in another order
        isRepeated = true
        name = input
        break
      }
      case 'Transpose':
        if (!swapsLast(intsAttribute(node, 'perm'))) return undefined
        name = input
        break
      case 'Cast':
      case 'Reshape':
      case 'Unsqueeze':
      case 'Identity':
        name = input
        break
      default:
        return undefined
    }
  }
  return undefined
}

function swapsLast(perm: readonly number[] | undefined): boolean {
  return String(perm) === '0,1,3,2' || String(perm) === '0,2,1'
}

/** The state behind a Concat of `past_key_values.N.key` (or `.value`) and new rows along the axis of tokens. */
function concatState(editor: GraphEditor, node: OnnxNode): string | undefined {
  const [past = '', ...others] = node.input
  const axis = intAttribute(node, 'axis')
  const match = editor.isInput(past) ? /^(.*)[._](key|value)$/.exec(past) : null
  return match && others.length === 1 && (axis === 2 || axis === -2) ? match[1] : undefined
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

/** A constant of one number. */
async function scalar(editor: GraphEditor, name: string): Promise<number | undefined> {
  const node = editor.producer(name)
  const value = node?.attribute.find((attribute) => attribute.name === 'value')
  const tensor = editor.initializer(name) ?? (node?.opType === 'Constant' ? value?.t : undefined)
  if (tensor) {
    const { values } = await readNumbers(tensor)
    return values.length === 1 ? values[0] : undefined
  }
  const [input = ''] = node?.input ?? []
  if (node?.opType === 'Sqrt' || node?.opType === 'Cast') {
    const inner = await scalar(editor, input)
    return inner === undefined ? undefined : node.opType === 'Sqrt' ? Math.sqrt(inner) : inner
  }
  return undefined
}
