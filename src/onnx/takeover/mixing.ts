/**
 * Checks that what is left of a graph treats each token by itself: it is run on a flat list of tokens of any sequences.
 * A node that brings tokens together, or of which that is not known, is refused.
 */
import { isAttention } from '../attention-node.ts'
import { valuesRead, valuesWritten } from '../graph-walk.ts'
import type { OnnxNode } from '../schema.ts'
import type { Facts } from './facts.ts'
import type { Dim } from './linear.ts'
import { operators } from './operators.ts'
import { refuse } from './refuse.ts'

/** @throws KvasirError `unsupported`, naming the first node that brings tokens together or may do so */
export function checkTokenwise(nodes: readonly OnnxNode[], facts: Facts): void {
  for (const node of nodes) if (!isAttention(node)) checkNode(node, facts)
}

function checkNode(node: OnnxNode, facts: Facts): void {
  const inputs = node.input.map((name) => facts.get(name) ?? {})
  if (valuesRead(node).every((name) => facts.get(name)?.isConstant)) return
  const operator = operators[node.opType ?? '']
  if (!operator || node.opType === 'Attention') {
    throw refuse(node, 'nothing is known of this operator, so it may bring tokens together')
  }
  if (valuesWritten(node).every((name) => facts.get(name)?.ints)) return // arithmetic on shapes
  for (const name of valuesWritten(node)) {
    const dims = facts.get(name)?.dims
    if (dims && dims.filter(holdsTokens).length > 1) throw refuse(node, 'it relates tokens to one another')
    if (dims?.some((dim) => dim?.p)) throw refuse(node, 'it depends on the number of earlier tokens')
  }
  const axes = operator.mixes?.(node, inputs)
  if (!axes) return
  const [data] = inputs
  if (!data?.dims || data.isConstant) return
  const along = axes === 'all' ? data.dims.map((_, i) => i) : axes
  const wrong = along.some((axis) => holdsTokens(data.dims!.at(axis)))
  if (wrong) throw refuse(node, 'it brings tokens together')
}

/** A dimension that grows with the number of tokens. */
function holdsTokens(dim: Dim): boolean {
  return dim !== undefined && dim.t !== 0
}
