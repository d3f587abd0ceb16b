/** Rotation by nodes in front of an attention, which our attention can do instead. */
import type { OnnxNode } from '../schema.ts'
import { intAttribute } from './attributes.ts'
import type { GraphRotation } from './contract.ts'
import type { GraphEditor } from './editor.ts'
import { isTable } from './tables.ts'

interface RotatedRows {
  /** Before rotation, `[1, T, H * D]`. */
  readonly query: string
  readonly key: string
  readonly rotary: GraphRotation
}

/**
 * The values before rotation, when query and key both come from RotaryEmbedding nodes of flat rows with the same
 * constant tables at the graph's position_ids. Otherwise the nodes stay, and keys arrive rotated.
 */
export function rotationInFront(editor: GraphEditor, query: string, key: string): RotatedRows | undefined {
  const [q, k] = [rotationOf(editor, query), rotationOf(editor, key)]
  if (!q || !k || q.rotary.cos !== k.rotary.cos || q.rotary.sin !== k.rotary.sin) return undefined
  if (q.rotary.isInterleaved !== k.rotary.isInterleaved) return undefined
  return { query: q.input, key: k.input, rotary: q.rotary }
}

function rotationOf(editor: GraphEditor, name: string): { input: string; rotary: GraphRotation } | undefined {
  const node = editor.producer(name)
  if (node?.opType !== 'RotaryEmbedding') return undefined
  const [input, positions, cos, sin] = namedInputs(node)
  const isFlat = editor.fact(input).dims?.length === 3
  const isPlain = positions === 'position_ids' && isTable(editor, cos) && isTable(editor, sin)
  if (!isFlat || !isPlain) return undefined
  return { input, rotary: { cos, sin, isInterleaved: intAttribute(node, 'interleaved') === 1 } }
}

/** Input, positions, cos, sin: the two operators of this name differ in their order. */
function namedInputs({ domain, input }: OnnxNode): readonly [string, string, string, string] {
  const [a = '', b = '', c = '', d = ''] = input
  return domain === 'com.microsoft' ? [a, b, c, d] : [a, d, b, c]
}
