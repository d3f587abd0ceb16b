/** Finds where the head of a model begins: the one value between the last layer and the logits. */
import { valuesRead, valuesWritten } from '../graph-walk.ts'
import type { OnnxNode } from '../schema.ts'
import type { Facts } from './facts.ts'

/** Nodes that multiply with a weight. */
const products = /^(MatMul|Gemm|FusedMatMul|DynamicQuantizeMatMul)/

/**
 * The value nearest to the logits that all of them come from, before the projection to the vocabulary; the logits
 * themselves when there is no such value.
 */
export function findHidden(nodes: readonly OnnxNode[], logits: string, facts: Facts): string {
  const order = new Map(nodes.map((node, i) => [node, i]))
  const producers = new Map(nodes.flatMap((node) => valuesWritten(node).map((name) => [name, node] as const)))
  const frontier = new Set([logits])
  let isProjected = false
  while (frontier.size > 0) {
    if (frontier.size === 1 && isProjected) return [...frontier][0]!
    const open = [...frontier].flatMap((name) => producers.get(name) ?? [])
    if (open.length < frontier.size) break // an input of the graph: nothing lies before it
    const last = open.reduce((a, b) => (order.get(b)! > order.get(a)! ? b : a))
    if (last.domain === 'kvasir') break
    for (const name of valuesWritten(last)) frontier.delete(name)
    for (const name of valuesRead(last)) if (!facts.get(name)?.isConstant) frontier.add(name)
    isProjected ||= products.test(last.opType ?? '')
  }
  return logits
}
