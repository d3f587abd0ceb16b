/** Takes arithmetic on shapes out of a graph: what is known without running becomes a constant. */
import { make } from '../codec.ts'
import { valuesRead, valuesWritten } from '../graph-walk.ts'
import { dataTypes, type OnnxGraph, type OnnxNode, type OnnxTensor } from '../schema.ts'
import type { Facts } from './facts.ts'
import { allTokens, isConstant, numberOf, same } from './linear.ts'

/** The nodes that outputs need. */
export function liveNodes(nodes: readonly OnnxNode[], outputs: readonly string[]): OnnxNode[] {
  const producers = new Map(nodes.flatMap((node) => valuesWritten(node).map((name) => [name, node] as const)))
  const live = new Set<OnnxNode>()
  const open = [...outputs]
  for (let name = open.pop(); name !== undefined; name = open.pop()) {
    const node = producers.get(name)
    if (!node || live.has(node)) continue
    live.add(node)
    open.push(...valuesRead(node))
  }
  return nodes.filter((node) => live.has(node))
}

/** Reshapes to `[1, T, ...]` get a constant shape with -1 for T, and other known integers become constants. */
export function foldShapes(graph: OnnxGraph, facts: Facts): OnnxGraph {
  const constants = new Map<string, OnnxTensor>()
  const nodes: OnnxNode[] = []
  for (const node of graph.node) {
    const [output = ''] = node.output
    const { ints, dims, type, isConstant: isFixed } = facts.get(output) ?? {}
    const isKnown = ints?.every(isConstant) && dims && node.output.length === 1 && type !== undefined
    if (isKnown && !isFixed && type !== dataTypes.bool) {
      constants.set(
        output,
        integers(
          output,
          ints!.map((dim) => dim!.c),
          dims!.length,
          type,
        ),
      )
    } else if (node.opType === 'Reshape') nodes.push(withFixedShape(node, facts, constants))
    else nodes.push(isWholeTable(node, facts) && isLookedUp(node, graph.node) ? whole(node) : node)
  }
  return { ...graph, node: nodes, initializer: [...graph.initializer, ...constants.values()] }
}

/** The first P + T rows of a table of constants: old exports cut their tables of cosines to the length so far. */
function isWholeTable({ opType, input }: OnnxNode, facts: Facts): boolean {
  if (opType !== 'Slice' || !facts.get(input[0] ?? '')?.isConstant) return false
  const [start, end, step] = [input[1], input[2], input[4]].map((name) => facts.get(name ?? '')?.ints?.[0])
  const isFromStart = numberOf(start) === 0 && (!input[4] || numberOf(step) === 1)
  return isFromStart && same(end, allTokens)
}

/** Whether rows are only taken from a value by their numbers, all of which are below P + T. */
function isLookedUp(node: OnnxNode, nodes: readonly OnnxNode[]): boolean {
  const [output = ''] = node.output
  const readers = nodes.filter((reader) => valuesRead(reader).includes(output))
  return readers.every((reader) => {
    if (reader.opType === 'Gather') return reader.input[0] === output
    return lookThrough.has(reader.opType ?? '') && isLookedUp(reader, nodes)
  })
}

const lookThrough = new Set(['Squeeze', 'Cast', 'Identity', 'Unsqueeze'])

function whole(node: OnnxNode): OnnxNode {
  return { ...node, opType: 'Identity', input: node.input.slice(0, 1), attribute: [] }
}

function withFixedShape(node: OnnxNode, facts: Facts, constants: Map<string, OnnxTensor>): OnnxNode {
  const [data = '', shape = ''] = node.input
  const ints = facts.get(shape)?.ints
  if (!ints?.every((dim) => dim !== undefined)) return node
  const open = ints.filter((dim) => !isConstant(dim))
  if (open.length !== 1 || ints.some((dim) => isConstant(dim) && dim.c === -1)) return node
  const name = `kvasir.shape:${ints.map((dim) => (isConstant(dim) ? dim.c : -1)).join(',')}`
  constants.set(
    name,
    integers(
      name,
      ints.map((dim) => (isConstant(dim) ? dim.c : -1)),
      1,
      dataTypes.int64,
    ),
  )
  return { ...node, input: [data, name] }
}

function integers(name: string, values: readonly number[], rank: number, dataType: number): OnnxTensor {
  const data = dataType === dataTypes.int64 ? { int64Data: [...values] } : { int32Data: [...values] }
  return make('Tensor', { name, dataType, dims: rank === 0 ? [] : [values.length], ...data })
}
