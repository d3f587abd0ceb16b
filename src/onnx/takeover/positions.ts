/**
 * Positions that a graph computes by itself, from lengths or from the attention mask, become the input
 * `position_ids`: a flat list of tokens has no one length. What is computed is run, not recognized: integers that are
 * P, P + 1, ... (and perhaps a number more) on steps of several lengths are positions.
 */
import { valueInfo } from '../builder.ts'
import { valuesRead, valuesWritten } from '../graph-walk.ts'
import { dataTypes, type OnnxModel } from '../schema.ts'
import type { OpenGraph } from './contract.ts'
import { GraphEditor } from './editor.ts'
import { inferFacts } from './facts.ts'
import { isNewTokens } from './linear.ts'
import { extractProbe, probeNames } from './probe.ts'

/** A graph in which nothing depends on lengths or the mask, as far as these are positions. */
export async function stepPositions(
  model: OnnxModel,
  { openGraph }: { readonly openGraph: OpenGraph },
): Promise<OnnxModel> {
  const graph = model.graph!
  const reads = new Set(graph.node.flatMap(valuesRead))
  const isLengthRead = graph.input.some(
    ({ name = '' }) => reads.has(name) && !['input_ids', 'position_ids'].includes(name),
  )
  if (!isLengthRead) return model
  const editor = new GraphEditor(model, await inferFacts(graph))
  const lengthDependent = dependants(editor)
  let hasPositions = graph.input.some(({ name }) => name === 'position_ids')
  let changed = false
  for (const node of graph.node) {
    const [output = ''] = node.output
    if (!lengthDependent.has(output) || !isFrontier(editor, lengthDependent, output)) continue
    const offset = await offsetOf(editor, output, openGraph)
    if (offset === undefined) continue
    const type = editor.fact(output).type ?? dataTypes.int64
    const rank = editor.fact(output).dims?.length ?? 2
    const shape = rank === 1 ? [-1] : [1, -1]
    const nodes = [editor.node('Reshape', ['position_ids', editor.integers(shape)])]
    const value = () => nodes.at(-1)!.output[0]!
    if (offset !== 0) nodes.push(editor.node('Add', [value(), editor.integers([offset])]))
    nodes.push(editor.node('Cast', [value()], { attributes: { to: { int: type } }, output }))
    editor.replace(node, nodes)
    hasPositions = changed = true
  }
  if (!changed) return model
  const finished = editor.finish()
  const input = finished.graph!.input.filter(({ name }) => name !== 'position_ids')
  if (hasPositions) input.push(valueInfo('position_ids', dataTypes.int64, [1, 'T']))
  return { ...finished, graph: { ...finished.graph!, input } }
}

/** Where positions turn into features. */
const lookups = new Set(['Gather', 'MatMul', 'Gemm'])

/** Values that follow from the mask or from the number of earlier tokens, and from nothing else that varies. */
function dependants(editor: GraphEditor): Set<string> {
  const values = new Set(['attention_mask'])
  for (const node of editor.nodes) {
    const reads = valuesRead(node).filter((input) => !editor.fact(input).isConstant)
    const isPure = reads.every((input) => values.has(input) || editor.fact(input).ints !== undefined)
    const isLookup = lookups.has(node.opType ?? '') && reads.length < valuesRead(node).length
    for (const name of valuesWritten(node)) {
      const { ints, dims } = editor.fact(name)
      const isLength = ints?.some((dim) => dim?.p) ?? false
      const isRow = dims !== undefined && dims.length <= 2 && !isLookup
      if (isLength || (isPure && isRow && reads.some((input) => values.has(input)))) values.add(name)
    }
  }
  return values
}

/** An integer for each new token, which something else than lengths is computed from. */
function isFrontier(editor: GraphEditor, values: ReadonlySet<string>, name: string): boolean {
  const { dims, type } = editor.fact(name)
  const isRow = dims !== undefined && dims.length >= 1 && dims.length <= 2 && isNewTokens(dims.at(-1))
  if (!isRow || (type !== dataTypes.int64 && type !== dataTypes.int32)) return false
  return editor.consumers(name).some(({ output }) => output.some((value) => !values.has(value)))
}

/** What is added to each token's position; undefined where the value is something else. */
async function offsetOf(editor: GraphEditor, name: string, openGraph: OpenGraph): Promise<number | undefined> {
  const probe = extractProbe(editor, name)
  if (typeof probe === 'string') return undefined
  const session = await openGraph(probe.model)
  let offset: number | undefined
  try {
    for (const [past, fresh] of [
      [0, 5],
      [7, 1],
      [3, 4],
    ] as const) {
      const feeds = {
        [probeNames.newTokens]: { dims: [], values: [fresh] },
        [probeNames.pastTokens]: { dims: [], values: [past] },
        attention_mask: { dims: [1, past + fresh], values: new Float32Array(past + fresh).fill(1) },
        input_ids: { dims: [1, fresh], values: new Float32Array(fresh) },
      }
      const given = Object.fromEntries(Object.entries(feeds).filter(([key]) => probe.inputs.has(key)))
      const { values } = (await session.run(given))[probeNames.result]!
      offset ??= (values[0] as number) - past
      for (let t = 0; t < fresh; t++) if (values[t] !== past + t + offset) return undefined
      if (values.length !== fresh) return undefined
    }
    return offset
  } finally {
    await session.release()
  }
}
