/** Tables of cosines and sines in a graph: constants, or a choice between two by the length of the sequence (LongRoPE). */
import { findConstant, type Numbers, readNumbers } from '../constants.ts'
import { dataTypes, type OnnxNode, type OnnxTensor } from '../schema.ts'
import type { FoundAttention, GraphRotation } from './contract.ts'
import type { GraphEditor } from './editor.ts'
import { allTokens, numberOf, same } from './linear.ts'
import { refuse } from './refuse.ts'

/** Cosines and sines of positions 0 to rows - 1, as a graph has them. */
export interface GraphTable {
  /** `[rows, R]` */
  readonly cos: Float32Array
  /** `[rows, R]` */
  readonly sin: Float32Array
  readonly rows: number
  /** R */
  readonly pairs: number
  readonly isInterleaved: boolean
  /** Rounded to 16 bits. */
  readonly isHalf: boolean
  /** The table of sequences longer than `length`, new tokens included, where there is one. */
  readonly beyond?: { readonly length: number; readonly table: GraphTable }
}

/** Whether tables are known before a step: constant, or chosen by the length alone. */
export function isTable(editor: GraphEditor, name: string): boolean {
  return editor.fact(name).isConstant === true || choiceOf(editor, name) !== undefined
}

/** @throws KvasirError `unsupported` for tables that are computed in another way or have another shape */
export async function readTable(editor: GraphEditor, found: FoundAttention): Promise<GraphTable> {
  const { anchor, rotary } = found
  const { cos, sin, isInterleaved } = rotary as GraphRotation
  const [c, s] = [choiceOf(editor, cos), choiceOf(editor, sin)]
  if (!c || !s) {
    const tensors = [findConstant(editor.model, cos), findConstant(editor.model, sin)] as const
    return tableOf(tensors, found, isInterleaved)
  }
  const near = await tableOf([c.near, s.near], found, isInterleaved)
  const far = await tableOf([c.far, s.far], found, isInterleaved)
  if (far.pairs !== near.pairs) throw refuse(anchor, 'its two tables differ in width')
  return { ...near, beyond: { length: c.length, table: far } }
}

async function tableOf(
  [cos, sin]: readonly [OnnxTensor | undefined, OnnxTensor | undefined],
  { anchor, headDim, rotary }: FoundAttention,
  isInterleaved: boolean,
): Promise<GraphTable> {
  if (!cos || !sin) throw refuse(anchor, `its tables "${rotary!.cos}" are not constant`)
  const [c, s] = [await readNumbers(cos), await readNumbers(sin)]
  const [rows = 0, pairs = 0] = c.dims
  if (c.dims.length !== 2 || String(c.dims) !== String(s.dims) || !(pairs >= 1 && 2 * pairs <= headDim)) {
    throw refuse(anchor, `expected tables of at most ${headDim / 2} columns, got [${c.dims.join(', ')}]`)
  }
  const isHalf = cos.dataType !== dataTypes.float
  return { cos: singles(c), sin: singles(s), rows, pairs, isInterleaved, isHalf }
}

function singles({ values }: Numbers): Float32Array {
  return values instanceof Float32Array ? values : Float32Array.from(values)
}

interface Choice {
  /** Tokens of a sequence up to which `near` is meant. */
  readonly length: number
  readonly near: OnnxTensor | undefined
  readonly far: OnnxTensor | undefined
}

/** If (all tokens > length) far else near. */
function choiceOf(editor: GraphEditor, name: string): Choice | undefined {
  const node = editor.producer(name)
  const condition = node?.opType === 'If' ? editor.producer(node.input[0] ?? '') : undefined
  if (!node || condition?.opType !== 'Greater') return undefined
  const [total, limit] = condition.input.map((input) => editor.fact(input).ints?.[0])
  const length = numberOf(limit)
  if (length === undefined || !same(total, allTokens)) return undefined
  const index = node.output.indexOf(name)
  return { length, far: branchTensor(node, 'then_branch', index), near: branchTensor(node, 'else_branch', index) }
}

function branchTensor(node: OnnxNode, branch: string, index: number): OnnxTensor | undefined {
  const graph = node.attribute.find(({ name }) => name === branch)?.g
  const wanted = graph?.output[index]?.name
  const tensor = graph?.initializer.find(({ name }) => name === wanted)
  const constant = graph?.node.find(({ opType, output }) => opType === 'Constant' && output[0] === wanted)
  return tensor ?? constant?.attribute.find(({ name }) => name === 'value')?.t
}
