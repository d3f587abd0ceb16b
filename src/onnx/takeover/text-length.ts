/**
 * Choices by the length of the text (LongRoPE, dynamic NTK as torch traces them): the largest position of a step, or
 * the number of all tokens where it is compared with a constant. A text is read in chunks, so that both would depend
 * on how it is divided; they become an input that says how long the whole text is.
 */
import { valueInfo } from '../builder.ts'
import { dataTypes, type OnnxModel, type OnnxNode } from '../schema.ts'
import { GraphEditor } from './editor.ts'
import { type Facts, inferFacts } from './facts.ts'
import { type Dim, numberOf } from './linear.ts'

/** Input, int64, `[1]`: tokens of the text that is read, those of later chunks included. */
export const textLengthName = 'kvasir.text_length'

const comparisons = new Set(['Greater', 'GreaterOrEqual', 'Less', 'LessOrEqual'])

/** What hands positions on as they are. */
const passing = new Set(['Cast', 'Identity', 'Unsqueeze', 'Squeeze', 'Reshape'])

export async function withTextLength(model: OnnxModel): Promise<OnnxModel> {
  const facts = await inferFacts(model.graph!)
  const editor = new GraphEditor(model, facts)
  let changed = false
  for (const node of model.graph!.node) {
    const nodes = isLargestPosition(editor, node) ? largestPosition(editor, node) : comparedLength(editor, facts, node)
    if (!nodes) continue
    editor.replace(node, nodes)
    changed = true
  }
  if (!changed) return model
  const finished = editor.finish()
  const input = [...finished.graph!.input, valueInfo(textLengthName, dataTypes.int64, [1])]
  return { ...finished, graph: { ...finished.graph!, input } }
}

/** One number for all tokens of the step. */
function isLargestPosition(editor: GraphEditor, node: OnnxNode): boolean {
  if (node.opType !== 'ReduceMax') return false
  if (!editor.fact(node.output[0] ?? '').dims?.every((dim) => numberOf(dim) === 1)) return false
  let [name = ''] = node.input
  for (;;) {
    if (name === 'position_ids') return true
    const producer = editor.producer(name)
    if (!passing.has(producer?.opType ?? '')) return false
    name = producer!.input[0] ?? ''
  }
}

function largestPosition(editor: GraphEditor, { output: [output = ''] }: OnnxNode): OnnxNode[] {
  const { type = dataTypes.int64, dims = [] } = editor.fact(output)
  const last = editor.node('Sub', [textLengthName, editor.integers([1])])
  return asValue(editor, last, { type, dims: dims.map(() => 1), output })
}

/** P + T + c, compared with a number: the node with what it compares put in its place. */
function comparedLength(editor: GraphEditor, facts: Facts, node: OnnxNode): OnnxNode[] | undefined {
  if (!comparisons.has(node.opType ?? '')) return undefined
  const at = node.input.findIndex((name) => isAllTokens(facts.get(name)?.ints))
  const other = facts.get(node.input[1 - at] ?? '')
  if (at < 0 || !other?.isConstant) return undefined
  const fact = facts.get(node.input[at]!)!
  const length = editor.node('Add', [textLengthName, editor.integers([fact.ints![0]!.c])])
  const { type = dataTypes.int64, dims = [] } = fact
  const nodes = asValue(editor, length, { type, dims: dims.map(() => 1), output: editor.fresh('length') })
  const input = node.input.with(at, nodes.at(-1)!.output[0]!)
  return [...nodes, { ...node, input }]
}

function isAllTokens(ints: readonly Dim[] | undefined): boolean {
  return ints?.length === 1 && ints[0]?.t === 1 && ints[0].p === 1
}

interface Form {
  readonly type: number
  readonly dims: readonly number[]
  readonly output: string
}

/** `[1]` int64 in another type and with other axes of 1. */
function asValue(editor: GraphEditor, node: OnnxNode, { type, dims, output }: Form): OnnxNode[] {
  const shaped = editor.node('Reshape', [node.output[0]!, editor.integers(dims)])
  return [node, shaped, editor.node('Cast', [shaped.output[0]!], { attributes: { to: { int: type } }, output })]
}
