/**
 * Cuts a graph at its attention nodes into L + 1 segments and a head.
 *
 * The level of a value is the number of attention nodes on the longest path to it; segment s holds the nodes of level
 * s, and attention node s stands between segments s and s + 1. Nothing here knows an architecture: what crosses a cut
 * follows from which segment writes a value and which ones read it. Nodes that depend on weights alone (a Cast) go
 * into every segment that uses them, so no weight ever crosses a cut.
 */

import type { GraphEnds } from './architectures/contract.ts'
import { type AttentionNode, isAttention, parseAttention } from './attention-node.ts'
import { valueInfo } from './builder.ts'
import { make } from './codec.ts'
import { producersOf, valuesRead, valuesWritten } from './graph-walk.ts'
import { dataTypes, type OnnxModel, type OnnxNode, type OnnxTensor, type OnnxValueInfo } from './schema.ts'
import { invalidFile } from './wire.ts'

/** A model of its own; inputs and outputs are values of the uncut graph, by name. */
export interface Segment {
  readonly name: string
  readonly model: OnnxModel
  readonly inputs: readonly string[]
  readonly outputs: readonly string[]
}

export interface CutModel {
  /** L + 1 segments; `attention[s]` runs after `segments[s]`. */
  readonly segments: readonly Segment[]
  /** L nodes, in order. */
  readonly attention: readonly AttentionNode[]
  /** From the last residual stream to the logits. */
  readonly head: Segment
}

/**
 * Divides a graph at its attention nodes: one segment more than there are, and the head.
 * @param ends the value that the head begins with and the output that is wanted
 * @throws KvasirError `invalid-file` when the graph is not in order, when two attention nodes don't follow one another,
 * or when the head needs more than its one value
 */
export function cutModel(model: OnnxModel, ends: Pick<GraphEnds, 'hidden' | 'logits' | 'alone'>): CutModel {
  const graph = model.graph!
  const producers = producersOf(graph)
  const constants = constantsOf(model)
  const results = [ends.logits, ...(ends.alone?.states ?? []).map(({ present }) => present)]
  const needed = neededFor(results, producers)
  const nodes = graph.node.filter((node) => needed.has(node))
  const levels = levelsOf(nodes, constants)
  const attention = inOrder(nodes.filter(isAttention), levels)
  const headNodes = dependantsOf(ends.hidden, nodes)
  const parts: OnnxNode[][] = Array.from({ length: attention.length + 1 }, () => [])
  const head: OnnxNode[] = []
  for (const node of nodes) {
    if (isAttention(node) || isConstant(node, constants)) continue
    if (headNodes.has(node)) head.push(node)
    else parts[levels.get(node)!]!.push(node)
  }
  const cutter = new Cutter(model, constants, producers)
  const outside = new Set([...attention.flatMap((node) => node.input), ...results, ends.hidden])
  const pieces = [...parts, head]
  const readers = readersOf(pieces)
  const segments = pieces.map((part, i) =>
    cutter.segment(part === head ? 'head' : `segment ${i}`, part, (value) => {
      const reader = readers.get(value)
      return outside.has(value) || (reader !== undefined && reader !== i)
    }),
  )
  checkHead(segments.at(-1)!, ends.hidden)
  return { segments: segments.slice(0, -1), attention: attention.map(parseAttention), head: segments.at(-1)! }
}

/** Makes segments out of the nodes of one model. */
class Cutter {
  readonly #model: OnnxModel
  readonly #constants: ReadonlySet<string>
  readonly #producers: ReadonlyMap<string, OnnxNode>
  readonly #types: ReadonlyMap<string, OnnxValueInfo>
  readonly #initializers: ReadonlyMap<string, OnnxTensor>
  readonly #order: ReadonlyMap<OnnxNode, number>

  constructor(model: OnnxModel, constants: ReadonlySet<string>, producers: ReadonlyMap<string, OnnxNode>) {
    this.#model = model
    this.#constants = constants
    this.#producers = producers
    const { input, output, valueInfo: inner, initializer, node: nodes } = model.graph!
    this.#initializers = new Map(initializer.map((tensor) => [tensor.name ?? '', tensor]))
    this.#order = new Map(nodes.map((node, i) => [node, i]))
    this.#types = new Map([...inner, ...output, ...input].map((info) => [info.name ?? '', info]))
  }

  /** @param isWanted tells the values that are read outside of this segment */
  segment(name: string, nodes: readonly OnnxNode[], isWanted: (value: string) => boolean): Segment {
    const written = new Set(nodes.flatMap(valuesWritten))
    const read = new Set(nodes.flatMap(valuesRead))
    const inputs = [...read].filter((value) => !written.has(value) && !this.#constants.has(value))
    const outputs = [...written].filter(isWanted)
    const all = [...this.#constantNodes(read), ...nodes]
    const used = new Set(all.flatMap(valuesRead))
    const { opsetImport, ...rest } = this.#model
    const cut = make('Graph', {
      name,
      node: all,
      initializer: [...used].flatMap((value) => this.#initializers.get(value) ?? []),
      input: inputs.map((value) => this.#types.get(value) ?? valueInfo(value, dataTypes.float, [])),
      output: outputs.map((value) => this.#types.get(value) ?? make('ValueInfo', { name: value })),
    })
    const standard = opsetImport.filter(({ domain }) => domain !== 'kvasir')
    return { name, inputs, outputs, model: { ...rest, opsetImport: standard, graph: cut } }
  }

  /** The nodes that compute constants which are read, and theirs, in graph order. */
  #constantNodes(read: ReadonlySet<string>): OnnxNode[] {
    const found = new Set<OnnxNode>()
    const open = [...read]
    for (let value = open.pop(); value !== undefined; value = open.pop()) {
      const node = this.#constants.has(value) ? this.#producers.get(value) : undefined
      if (!node || found.has(node)) continue
      found.add(node)
      open.push(...valuesRead(node))
    }
    return [...found].sort((a, b) => this.#order.get(a)! - this.#order.get(b)!)
  }
}

/** The piece that reads each value; -1 where several do. */
function readersOf(pieces: readonly (readonly OnnxNode[])[]): Map<string, number> {
  const readers = new Map<string, number>()
  for (const [i, piece] of pieces.entries()) {
    for (const value of piece.flatMap(valuesRead)) readers.set(value, (readers.get(value) ?? i) === i ? i : -1)
  }
  return readers
}

/** Initializers and everything that is computed from them alone. */
function constantsOf({ graph }: OnnxModel): Set<string> {
  const constants = new Set(graph!.initializer.map(({ name }) => name ?? ''))
  for (const node of graph!.node) {
    if (isConstant(node, constants)) for (const name of valuesWritten(node)) constants.add(name)
  }
  return constants
}

function isConstant(node: OnnxNode, constants: ReadonlySet<string>): boolean {
  return valuesRead(node).every((name) => constants.has(name))
}

/** The nodes that outputs depend on. */
function neededFor(outputs: readonly string[], producers: ReadonlyMap<string, OnnxNode>): Set<OnnxNode> {
  const missing = outputs.find((name) => !producers.has(name))
  if (missing !== undefined) throw invalidFile(`expected the graph to compute "${missing}", got no node that does`)
  const needed = new Set<OnnxNode>()
  const open = [...outputs]
  for (let value = open.pop(); value !== undefined; value = open.pop()) {
    const node = producers.get(value)
    if (!node || needed.has(node)) continue
    needed.add(node)
    open.push(...valuesRead(node))
  }
  return needed
}

/** The level of each node: that of its inputs; an attention node raises the level of what it writes. */
function levelsOf(nodes: readonly OnnxNode[], constants: ReadonlySet<string>): Map<OnnxNode, number> {
  const levels = new Map<OnnxNode, number>()
  const valueLevels = new Map<string, number>()
  for (const node of nodes) {
    const variable = valuesRead(node).filter((name) => !constants.has(name))
    const level = variable.reduce((most, name) => Math.max(most, valueLevels.get(name) ?? 0), 0)
    levels.set(node, level)
    for (const name of valuesWritten(node)) valueLevels.set(name, isAttention(node) ? level + 1 : level)
  }
  return levels
}

/** Attention nodes by level: exactly one on each. */
function inOrder(attention: readonly OnnxNode[], levels: ReadonlyMap<OnnxNode, number>): OnnxNode[] {
  const sorted = [...attention].sort((a, b) => levels.get(a)! - levels.get(b)!)
  const wrong = sorted.findIndex((node, i) => levels.get(node) !== i)
  if (wrong < 0) return sorted
  throw invalidFile(`expected attention nodes that follow one another, got "${sorted[wrong]!.name}" beside another`)
}

/** Nodes after `value`. */
function dependantsOf(value: string, nodes: readonly OnnxNode[]): Set<OnnxNode> {
  const values = new Set([value])
  const dependants = new Set<OnnxNode>()
  for (const node of nodes) {
    if (!valuesRead(node).some((name) => values.has(name))) continue
    dependants.add(node)
    for (const name of valuesWritten(node)) values.add(name)
  }
  return dependants
}

/** The head runs on chosen rows only, so it must not need anything that has all rows. */
function checkHead(head: Segment, hidden: string): void {
  if (String(head.inputs) === hidden) return
  throw invalidFile(`expected a head that needs "${hidden}" alone, got one that needs "${head.inputs.join('", "')}"`)
}
