/** Published decoders that were changed, so that they are something else or nothing known. */
import type { OnnxModel, OnnxNode } from '../../schema.ts'
import { groupQuery } from './fused.ts'
import { fusedDecoder } from './scaffold.ts'
import { createCustom, createDecoder, type StyleName } from './styles.ts'
import { type DecoderSettings, type PublishedWriter, smallDecoder } from './writer.ts'

/** Fused nodes, with attributes of one's own. */
export const fused = (
  attention: Parameters<typeof groupQuery>[1],
  settings: Partial<DecoderSettings> = {},
): OnnxModel => createCustom((w) => fusedDecoder(w, groupQuery(w, attention)), settings)

/** As many KV heads as heads. */
export const heads = { numKvHeads: smallDecoder.numHeads }

export function edit(style: StyleName, change: (model: OnnxModel) => OnnxModel): OnnxModel {
  return change(createDecoder(style))
}

export function withNodes(model: OnnxModel, change: (node: OnnxNode) => OnnxNode): OnnxModel {
  return { ...model, graph: { ...model.graph!, node: model.graph!.node.map(change) } }
}

/** Puts a node between the last norm and the head. */
export function beforeHead(opType: string, extra: (w: PublishedWriter) => readonly string[] = () => []): OnnxModel {
  return createCustom((w) => {
    fusedDecoder(w, groupQuery(w, {}))
    const at = w.nodes.findIndex(({ output }) => output[0] === '/lm_head/MatMul_output_0')
    const head = w.nodes[at]!
    w.nodes.splice(at, 1)
    const changed = w.node(opType, [head.input[0]!, ...extra(w)], 'strange')
    w.nodes.push({ ...head, input: [changed, head.input[1]!] })
    const cast = w.nodes.findIndex(({ output }) => output[0] === 'logits')
    w.nodes.push(...w.nodes.splice(cast, 1))
  })
}
