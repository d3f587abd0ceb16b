/**
 * States of a graph that are not taken over: of convolutions (`past_conv.0`), of recurrent layers (`past_ssm.0`), and
 * keys and values of an attention that stays in the graph. They pass through: fed empty at first, then what the graph
 * gave back the last time.
 */
import type { GraphState, StatePair } from '../architectures/contract.ts'
import { valuesRead, valuesWritten } from '../graph-walk.ts'
import type { OnnxGraph, OnnxNode } from '../schema.ts'
import type { Fact } from './facts.ts'
import { isConstant, pastTokens, same } from './linear.ts'
import { refuse } from './refuse.ts'
import { liveNodes } from './simplify.ts'

/** Inputs with `past` in their name, where there is an output that has `present` instead. */
export function statePairs({ input, output }: OnnxGraph): StatePair[] {
  const outputs = new Set(output.map(({ name }) => name ?? ''))
  return input.flatMap(({ name: past = '' }) => {
    const names = [past.replace('past_key_values', 'present'), past.replace('past', 'present')]
    const present = names.find((name) => name !== past && outputs.has(name))
    return present === undefined ? [] : [{ past, present }]
  })
}

export interface LiveGraph {
  readonly nodes: OnnxNode[]
  /** Those that these nodes read, and therefore have to write. */
  readonly states: readonly StatePair[]
  /** Logits and states. */
  readonly outputs: readonly string[]
}

/** What logits need, and what the states need that it needs in turn. Sizes of states are no use of them. */
export function liveGraph({ node }: OnnxGraph, logits: string, pairs: readonly StatePair[]): LiveGraph {
  const states: StatePair[] = []
  const outputs = [logits]
  for (;;) {
    const nodes = liveNodes(node, outputs)
    const read = new Set(nodes.filter(({ opType }) => opType !== 'Shape').flatMap(valuesRead))
    const found = pairs.filter((pair) => read.has(pair.past) && !states.includes(pair))
    if (found.length === 0) {
      checkWritten(nodes, states)
      return { nodes, states, outputs }
    }
    states.push(...found)
    outputs.push(...found.map(({ present }) => present))
  }
}

function checkWritten(nodes: readonly OnnxNode[], states: readonly StatePair[]): void {
  const written = new Set(nodes.flatMap(valuesWritten))
  const lost = states.find(({ present }) => !written.has(present))
  const reader = lost && nodes.find((node) => valuesRead(node).includes(lost.past))
  if (lost && reader) throw refuse(reader, `it reads "${lost.past}", and nothing is left that writes "${lost.present}"`)
}

/** @throws KvasirError `unsupported` when it is not known how large a state is before the first token */
export function stateOf(pair: StatePair, { type, dims }: Fact): GraphState {
  const node = { opType: 'State', name: pair.past }
  if (type === undefined || !dims) throw refuse(node, 'its type or its shape is not known')
  const sizes = dims.map((dim, axis) => {
    if (isConstant(dim)) return dim.c
    if (same(dim, pastTokens)) return 0
    throw refuse(node, `the size of its axis ${axis} is not known`)
  })
  return { ...pair, type, dims: sizes, grows: dims.some((dim) => same(dim, pastTokens)) }
}
