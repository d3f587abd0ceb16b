/**
 * Takes over a published decoder: attention nodes of any known form become kvasir.Attention nodes, and what only fed
 * attention (masks, lengths, positions, tables of cosines and sines) is dropped. See docs/onnx.md.
 */
import { KvasirError } from '../../tensor/error.ts'
import type { GraphEnds } from '../architectures/contract.ts'
import { make } from '../codec.ts'
import { producersOf, valuesRead } from '../graph-walk.ts'
import { dataTypes, type OnnxGraph, type OnnxModel, type OnnxValueInfo } from '../schema.ts'
import type { FoundAttention, OpenGraph } from './contract.ts'
import { GraphEditor } from './editor.ts'
import { type Fact, type Facts, inferFacts } from './facts.ts'
import { findHidden } from './head.ts'
import { isConstant, isNewTokens, numberOf } from './linear.ts'
import { checkTokenwise } from './mixing.ts'
import { patterns } from './patterns/index.ts'
import { placeAttention } from './place.ts'
import { stepPositions } from './positions.ts'
import { prepare } from './prepare.ts'
import { refuse } from './refuse.ts'
import { foldShapes, liveNodes } from './simplify.ts'
import { type GraphTable, readTable } from './tables.ts'
import { VisibilityLearner } from './visibility.ts'

export type { OpenGraph } from './contract.ts'
export type { GraphTable } from './tables.ts'

export interface TakeOverOptions {
  /** Runs small parts of the graph, to learn what its masks mean. */
  readonly openGraph: OpenGraph
  /** How far the model goes, from config.json. */
  readonly maxPositions: number
}

export interface TakenOver {
  /** The graph with kvasir.Attention nodes; every value has its type. */
  readonly model: OnnxModel
  readonly ends: GraphEnds
  readonly vocabSize: number
  readonly hiddenSize: number
  /** For each `rotary` of the attention nodes but `none`. */
  readonly tables: ReadonlyMap<string, GraphTable>
  /** For each attention node, in order: the form that it had. */
  readonly kinds: readonly string[]
}

/**
 * @throws KvasirError `unsupported` naming the node that can't be taken over and why, `invalid-file` for graphs that
 * are not in order
 */
export async function takeOver(original: OnnxModel, options: TakeOverOptions): Promise<TakenOver> {
  const model = prepare(original)
  producersOf(model.graph!) // in order and without cycles
  const logits = logitsOf(model.graph!)
  const editor = new GraphEditor(model, await inferFacts(model.graph!))
  const found = await findAll(editor)
  const tables = await placeAll(editor, found, options)
  const replaced = await stepPositions(editor.finish(), logits, options)
  return finish(replaced, logits, tables, found)
}

function logitsOf({ output }: OnnxGraph): string {
  if (output.some(({ name }) => name === 'logits')) return 'logits'
  const names = output.map(({ name }) => `"${name}"`).slice(0, 5)
  throw new KvasirError('unsupported', 'onnx', `expected an output "logits", got ${names.join(', ')}`)
}

async function findAll(editor: GraphEditor): Promise<FoundAttention[]> {
  const found: FoundAttention[] = []
  for (const pattern of Object.values(patterns)) found.push(...(await pattern.find(editor)))
  const order = new Map(editor.nodes.map((node, i) => [node, i]))
  found.sort((a, b) => order.get(a.anchor)! - order.get(b.anchor)!)
  if (found.length > 0) return found
  throw new KvasirError(
    'unsupported',
    'onnx',
    'expected a decoder with a key and value cache, found no attention in it',
  )
}

async function placeAll(
  editor: GraphEditor,
  found: readonly FoundAttention[],
  options: TakeOverOptions,
): Promise<Map<string, GraphTable>> {
  const learner = new VisibilityLearner(editor, options)
  const tables = new Map<string, GraphTable>()
  const layers = new Map<string, number>()
  for (const [layer, attention] of found.entries()) {
    const { anchor, rotary, state, sharesStateOf } = attention
    if (layers.has(state) && sharesStateOf === undefined) throw refuse(anchor, `the cache "${state}" has another owner`)
    const origin = sharesStateOf === undefined ? undefined : layers.get(sharesStateOf)
    if (sharesStateOf === undefined) layers.set(state, layer)
    else if (origin === undefined) throw refuse(anchor, `it reads the cache "${sharesStateOf}" before that is written`)
    const key = rotary ? `${rotary.cos}${rotary.isInterleaved ? ', interleaved' : ''}` : 'none'
    if (rotary && !tables.has(key)) tables.set(key, await readTable(editor, attention))
    const rule = await learner.learn(attention)
    placeAttention(editor, attention, {
      layer,
      rule,
      rotary: key,
      ...(origin !== undefined && { sharesKeyValueWith: origin }),
    })
  }
  return tables
}

/** Inputs that a step is given; any other one that is still read is one too many. */
const fed = ['input_ids', 'position_ids']

async function finish(
  model: OnnxModel,
  logits: string,
  tables: ReadonlyMap<string, GraphTable>,
  found: readonly FoundAttention[],
): Promise<TakenOver> {
  const live: OnnxGraph = { ...model.graph!, node: liveNodes(model.graph!.node, logits) }
  const folded = foldShapes(live, await inferFacts(live))
  const graph: OnnxGraph = { ...folded, node: liveNodes(folded.node, logits) }
  const facts = await inferFacts(graph)
  checkInputs(graph)
  checkTokenwise(graph.node, facts)
  checkTypes(graph, facts)
  const hidden = findHidden(graph.node, logits, facts)
  const [vocabSize, hiddenSize] = [sizeOf(facts, logits), sizeOf(facts, hidden)]
  const output = 'kvasir.logits'
  const cast = make('Node', { opType: 'Cast', name: output, input: [logits], output: [output] })
  cast.attribute.push(make('Attribute', { name: 'to', type: 2, i: dataTypes.float }))
  const all = new Map([...facts, [output, { ...facts.get(logits), type: dataTypes.float }]])
  const valueInfo = [...all].flatMap(([name, fact]) => declare(name, fact))
  const finished: OnnxGraph = {
    ...graph,
    node: [...graph.node, cast],
    input: graph.input
      .filter(({ name }) => fed.includes(name ?? ''))
      .flatMap(({ name = '' }) => declare(name, facts.get(name)!)),
    output: declare(output, all.get(output)!),
    valueInfo: valueInfo.filter(({ name }) => name !== output && !fed.includes(name ?? '')),
  }
  const reads = new Set(graph.node.flatMap(valuesRead))
  return {
    model: { ...model, graph: finished },
    ends: {
      tokens: 'input_ids',
      hidden,
      logits: output,
      ...(reads.has('position_ids') && { positions: 'position_ids' }),
    },
    vocabSize,
    hiddenSize,
    tables,
    kinds: found.map(({ kind }) => kind),
  }
}

function checkInputs(graph: OnnxGraph): void {
  const inputs = new Set(graph.input.map(({ name }) => name ?? ''))
  const initializers = new Set(graph.initializer.map(({ name }) => name ?? ''))
  for (const node of graph.node) {
    const wrong = valuesRead(node).find((name) => inputs.has(name) && !fed.includes(name) && !initializers.has(name))
    if (wrong !== undefined) throw refuse(node, `it reads "${wrong}", and nothing but attention may`)
  }
}

/** A value may become the input of a segment, which must say what it is. */
function checkTypes(graph: OnnxGraph, facts: Facts): void {
  for (const node of graph.node) {
    const unknown = node.input.find((name) => name !== '' && !facts.get(name)?.isConstant && !facts.get(name)?.type)
    if (unknown !== undefined) throw refuse(node, `the type of its input "${unknown}" is not known`)
  }
}

function sizeOf(facts: Facts, name: string): number {
  const size = numberOf(facts.get(name)?.dims?.at(-1))
  if (size !== undefined) return size
  throw new KvasirError('unsupported', 'onnx', `expected a known number of columns of "${name}"`)
}

/** The declaration of a value; none where its type is not known. */
function declare(name: string, { type, dims }: Fact): OnnxValueInfo[] {
  if (type === undefined) return []
  const dim = dims?.map((size) => {
    if (isConstant(size)) return make('Dimension', { dimValue: size.c })
    return make('Dimension', isNewTokens(size) ? { dimParam: 'T' } : {})
  })
  const tensorType = make('TensorType', { elemType: type, ...(dim && { shape: make('Shape', { dim }) }) })
  return [make('ValueInfo', { name, type: make('Type', { tensorType }) })]
}
