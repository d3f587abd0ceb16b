/** What the fused attention operators have in common. */
import type { OnnxNode } from '../../schema.ts'
import { intAttribute } from '../attributes.ts'
import type { Rows } from '../contract.ts'
import type { GraphEditor } from '../editor.ts'
import { refuse } from '../refuse.ts'

/** A required integer attribute. */
export function requiredInt(node: OnnxNode, name: string): number {
  const value = intAttribute(node, name)
  if (value !== undefined && value >= 1) return value
  throw refuse(node, `expected the attribute ${name}, got ${value ?? 'none'}`)
}

/** An optional input; absent ones have an empty name. */
export function inputAt(node: OnnxNode, index: number): string | undefined {
  return node.input[index] || undefined
}

export function flat(name: string): Rows {
  return { name, isHeadsFirst: false }
}

/** Refuses a node with an input that changes its meaning. */
export function refuseInputs(node: OnnxNode, inputs: Readonly<Record<number, string>>): void {
  for (const [index, what] of Object.entries(inputs)) {
    if (inputAt(node, Number(index))) throw refuse(node, `it has ${what}`)
  }
}

/** Refuses a node whose output is read by others: outputs other than the first and the present state. */
export function refuseOutput(editor: GraphEditor, node: OnnxNode, index: number, what: string): void {
  const name = node.output[index]
  const isResult = editor.model.graph!.output.some((output) => output.name === name)
  if (name && (isResult || editor.consumers(name).length > 0)) throw refuse(node, `${what} are read`)
}

/**
 * The state that a node continues: `past_key_values.3` of the input `past_key_values.3.key`, or of the present output
 * of another attention.
 */
export function stateOf(editor: GraphEditor, node: OnnxNode, past: string | undefined): string {
  const match = past && editor.isInput(past) ? /^(.*)[._]key$/.exec(past) : null
  if (match) return match[1] as string
  throw refuse(node, `expected a past key like past_key_values.0.key, got ${past ? `"${past}"` : 'none'}`)
}

/** Refuses a mask of padding that says more than `attention_mask` does: tokens of a step are all there. */
export function checkPadding(editor: GraphEditor, node: OnnxNode, index: number): void {
  const mask = inputAt(node, index)
  let name = mask
  for (let steps = 0; name !== undefined && name !== 'attention_mask' && steps < 8; steps++) {
    const producer = editor.producer(name)
    name = producer && ['Cast', 'Identity'].includes(producer.opType ?? '') ? producer.input[0] : undefined
  }
  if (mask && name !== 'attention_mask') throw refuse(node, `expected attention_mask as its mask, got "${mask}"`)
}

/** The sizes of a value's last axis, or a refusal. */
export function lastSize(editor: GraphEditor, node: OnnxNode, name: string, ...hints: (number | undefined)[]): number {
  const size = editor.size(name, -1) ?? hints.find((hint) => hint !== undefined)
  if (size !== undefined) return size
  throw refuse(node, `expected a known width of "${name}"`)
}
