/** Questions about a graph's nodes that do not change it. */
import type { OnnxGraph, OnnxNode } from './schema.ts'
import { invalidFile } from './wire.ts'

/** All values that a node reads: its inputs and what its subgraphs (If, Loop) take from outside. */
export function valuesRead(node: OnnxNode): string[] {
  const captured = node.attribute.flatMap(({ g, graphs }) => [...(g ? [g] : []), ...graphs]).flatMap(capturedBy)
  return [...new Set([...node.input.filter((name) => name !== ''), ...captured])]
}

export function valuesWritten(node: OnnxNode): string[] {
  return node.output.filter((name) => name !== '')
}

/** Every value and the node that writes it. Throws when a value is written twice or read before it is written. */
export function producersOf(graph: OnnxGraph): Map<string, OnnxNode> {
  const producers = new Map<string, OnnxNode>()
  const given = new Set([...graph.input, ...graph.initializer].map(({ name }) => name ?? ''))
  for (const node of graph.node) {
    for (const name of valuesRead(node)) {
      if (producers.has(name) || given.has(name)) continue
      throw invalidFile(`expected nodes in order, got node "${node.name}" reading "${name}" before it is written`)
    }
    for (const name of valuesWritten(node)) {
      if (producers.has(name) || given.has(name))
        throw invalidFile(`expected value "${name}" once, got it written twice`)
      producers.set(name, node)
    }
  }
  return producers
}

function capturedBy(graph: OnnxGraph): string[] {
  const own = new Set([...graph.input, ...graph.initializer].map(({ name }) => name ?? ''))
  for (const node of graph.node) for (const name of valuesWritten(node)) own.add(name)
  const read = [...graph.node.flatMap(valuesRead), ...graph.output.map(({ name }) => name ?? '')]
  return read.filter((name) => !own.has(name))
}
