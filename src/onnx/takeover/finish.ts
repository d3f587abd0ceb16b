/** The last steps of a takeover: what is left of the graph is checked, declared and given ends. */
import { isKvasirError, KvasirError, reasonOf } from '../../tensor/error.ts'
import type { AloneEnds, GraphEnds, StatePair } from '../architectures/contract.ts'
import { make } from '../codec.ts'
import { valuesRead, valuesWritten } from '../graph-walk.ts'
import { dataTypes, type OnnxGraph, type OnnxModel, type OnnxValueInfo } from '../schema.ts'
import { type Fact, type Facts, inferFacts } from './facts.ts'
import { findHidden } from './head.ts'
import { withStepLengths } from './lengths.ts'
import { constant, isConstant, isNewTokens, newTokens, numberOf } from './linear.ts'
import { checkTokenwise } from './mixing.ts'
import { refuse } from './refuse.ts'
import { foldShapes } from './simplify.ts'
import { liveGraph, stateOf } from './states.ts'
import { textLengthName } from './text-length.ts'

/** Inputs that every step is given. */
const fed = ['input_ids', 'position_ids']

export interface Finished {
  readonly model: OnnxModel
  readonly ends: GraphEnds
  readonly vocabSize: number
  readonly hiddenSize: number
}

/**
 * @param pairs the states of the graph, those that were taken over included
 * @throws KvasirError `unsupported` naming what can't be run as it is
 */
export async function finishGraph(
  { graph: all, ...model }: OnnxModel,
  logits: string,
  pairs: readonly StatePair[],
): Promise<Finished> {
  const live: OnnxGraph = { ...all!, node: liveGraph(all!, logits, pairs).nodes }
  const folded = foldShapes(live, await inferFacts(live))
  const rest: OnnxGraph = { ...folded, node: liveGraph(folded, logits, pairs).nodes }
  const measured = withStepLengths({ ...model, graph: rest }, await inferFacts(rest), pairs).graph!
  const { nodes, states, outputs } = liveGraph(measured, logits, pairs)
  const graph: OnnxGraph = { ...measured, node: nodes }
  const facts = await inferFacts(graph)
  facts.set(logits, rowsOfLogits(facts.get(logits)))
  const alone = aloneEnds(graph, facts, states)
  const inputs = [...fed, ...(alone ? ['attention_mask', textLengthName, ...states.map(({ past }) => past)] : [])]
  checkInputs(graph, inputs)
  checkTypes(graph, facts)
  const hidden = hiddenOf(graph, logits, facts, alone)
  const output = 'kvasir.logits'
  const cast = make('Node', { opType: 'Cast', name: output, input: [logits], output: [output] })
  cast.attribute.push(make('Attribute', { name: 'to', type: 2, i: dataTypes.float }))
  const types = new Map([...facts, [output, { ...facts.get(logits), type: dataTypes.float }]])
  const results = [output, ...outputs.slice(1)]
  const finished: OnnxGraph = {
    ...graph,
    node: [...graph.node, cast],
    input: graph.input
      .filter(({ name }) => inputs.includes(name ?? ''))
      .flatMap(({ name = '' }) => declare(name, facts.get(name)!)),
    output: results.flatMap((name) => declare(name, types.get(name)!)),
    valueInfo: [...types]
      .filter(([name]) => !results.includes(name) && !inputs.includes(name))
      .flatMap(([name, fact]) => declare(name, fact)),
  }
  const reads = new Set(graph.node.flatMap(valuesRead))
  return {
    model: { ...model, graph: finished },
    ends: {
      tokens: 'input_ids',
      hidden,
      logits: output,
      ...(reads.has('position_ids') && { positions: 'position_ids' }),
      ...(alone && { alone }),
    },
    vocabSize: sizeOf(facts, logits),
    hiddenSize: sizeOf(facts, hidden),
  }
}

/** `[1, T, V]`, also where the length was lost on the way. */
function rowsOfLogits({ dims, ...fact }: Fact = {}): Fact {
  return { ...fact, dims: dims?.length === 3 ? [constant(1), newTokens, dims[2]] : dims }
}

/** Why and how sequences are to be run one at a time; undefined where that is not needed. */
function aloneEnds(graph: OnnxGraph, facts: Facts, pairs: readonly StatePair[]): AloneEnds | undefined {
  const states = pairs.map((pair) => stateOf(pair, facts.get(pair.past) ?? {}))
  const reads = graph.node.find((node) => valuesRead(node).includes('attention_mask'))
  const chooser = graph.node.find((node) => valuesRead(node).includes(textLengthName))
  const reason = states.length === 0 ? mixingReason(graph, facts) : undefined
  const reader = reads && `${reads.opType} "${reads.name}" reads the attention mask`
  const choice = chooser && 'the choice of its rotation, which goes by the length of the text'
  if (states.length === 0 && reason === undefined && !reader && !choice) return undefined
  const why = reason ?? (states.length === 0 ? (choice ?? reader) : undefined)
  return {
    states,
    ...(reads && { mask: 'attention_mask' }),
    ...(chooser && { textLength: textLengthName }),
    ...(why !== undefined && { reason: why }),
  }
}

function mixingReason(graph: OnnxGraph, facts: Facts): string | undefined {
  try {
    checkTokenwise(graph.node, facts)
    return undefined
  } catch (error) {
    if (isKvasirError(error)) return reasonOf(error)
    throw error
  }
}

/** The head runs on some of the rows, so that nothing in it may bring tokens together or belong to a state. */
function hiddenOf(graph: OnnxGraph, logits: string, facts: Facts, alone: AloneEnds | undefined): string {
  const hidden = findHidden(graph.node, logits, facts)
  if (!alone || hidden === logits) return hidden
  const after = new Set([hidden])
  const head = graph.node.filter((node) => {
    const depends = valuesRead(node).some((name) => after.has(name))
    if (depends) for (const name of valuesWritten(node)) after.add(name)
    return depends
  })
  const hasState = alone.states.some(({ present }) => after.has(present))
  const isRow = isNewTokens(facts.get(hidden)?.dims?.at(-2))
  return hasState || !isRow || mixingReason({ ...graph, node: head }, facts) !== undefined ? logits : hidden
}

function checkInputs(graph: OnnxGraph, given: readonly string[]): void {
  const inputs = new Set(graph.input.map(({ name }) => name ?? ''))
  const initializers = new Set(graph.initializer.map(({ name }) => name ?? ''))
  const known = new Set([...given, ...initializers, ...graph.node.flatMap(valuesWritten)])
  for (const node of graph.node) {
    const wrong = valuesRead(node).find((name) => !known.has(name))
    if (wrong === undefined) continue
    const what = inputs.has(wrong)
      ? 'and nothing but attention may'
      : 'which belonged to an attention that was taken over'
    throw refuse(node, `it reads "${wrong}", ${what}`)
  }
}

/** A value may become the input of a segment, which must say what it is. */
function checkTypes(graph: OnnxGraph, facts: Facts): void {
  for (const node of graph.node) {
    const unknown = valuesRead(node).find((name) => !facts.get(name)?.isConstant && !facts.get(name)?.type)
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
