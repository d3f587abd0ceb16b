/** Sizes of states as sizes of a step: a state that was taken over is no input any longer. */
import type { StatePair } from '../architectures/contract.ts'
import { valueInfo } from '../builder.ts'
import { valuesRead } from '../graph-walk.ts'
import type { OnnxModel, OnnxNode } from '../schema.ts'
import { dataTypes } from '../schema.ts'
import { GraphEditor } from './editor.ts'
import type { Facts } from './facts.ts'
import { isConstant, type Linear } from './linear.ts'

/** A graph in which `Shape` of a past is computed from `input_ids` and `attention_mask`. */
export function withStepLengths(model: OnnxModel, facts: Facts, pairs: readonly StatePair[]): OnnxModel {
  const pasts = new Set(pairs.map(({ past }) => past))
  const shapes = model.graph!.node.filter(({ opType, input }) => opType === 'Shape' && pasts.has(input[0] ?? ''))
  const known = shapes.filter(({ output }) => facts.get(output[0] ?? '')?.ints?.every((dim) => dim !== undefined))
  if (known.length === 0) return model
  const editor = new GraphEditor(model, facts)
  for (const node of known) {
    const [output = ''] = node.output
    editor.replace(node, fromStep(editor, output, facts.get(output)!.ints as readonly Linear[]))
  }
  const finished = editor.finish()
  const hasMask = finished.graph!.input.some(({ name }) => name === 'attention_mask')
  const reads = finished.graph!.node.some((node) => valuesRead(node).includes('attention_mask'))
  if (hasMask || !reads) return finished
  const input = [...finished.graph!.input, valueInfo('attention_mask', dataTypes.int64, [1, 'S'])]
  return { ...finished, graph: { ...finished.graph!, input } }
}

/** c + t * T + p * P, where P is what `attention_mask` is longer than `input_ids`. */
function fromStep(editor: GraphEditor, output: string, dims: readonly Linear[]): OnnxNode[] {
  const nodes: OnnxNode[] = []
  const node = (
    opType: string,
    input: readonly string[],
    settings: Parameters<GraphEditor['node']>[2] = {},
  ): string => {
    const made = editor.node(opType, input, settings)
    nodes.push(made)
    return made.output[0]!
  }
  const fixed = editor.integers(dims.map(({ c }) => c))
  if (dims.every(isConstant)) {
    node('Identity', [fixed], { output })
    return nodes
  }
  const length = (name: string): string => node('Gather', [node('Shape', [name]), editor.integers([1])])
  const [fresh, all] = [length('input_ids'), length('attention_mask')]
  const news = node('Mul', [fresh, editor.integers(dims.map(({ t }) => t))])
  const past = node('Mul', [node('Sub', [all, fresh]), editor.integers(dims.map(({ p }) => p))])
  node('Add', [node('Add', [news, past]), fixed], { output })
  return nodes
}
