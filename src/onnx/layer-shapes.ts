/** What a cache must know of each attention node: sizes, and what its attention does besides. */
import type { LayerShape } from '../cache/contract.ts'
import type { AttentionNode } from './attention-node.ts'
import { readConstant } from './constants.ts'
import type { OnnxModel } from './schema.ts'

/**
 * The shape of each attention node, in order. Slopes of ALiBi are not in it: they follow from the number of heads.
 * @throws KvasirError `invalid-file` when sink logits are not a constant of H numbers
 */
export async function layerShapes(model: OnnxModel, attention: readonly AttentionNode[]): Promise<LayerShape[]> {
  const shapes: LayerShape[] = []
  for (const node of attention) {
    const { numHeads, numKvHeads, headDim, valueDim = headDim, scale, softcap, window } = node
    const sinkLogits = node.sinkLogits && (await readConstant(model, node.sinkLogits, [numHeads]))
    const optional = { scale, softcap, window, sinkLogits: sinkLogits || undefined }
    const given = Object.fromEntries(Object.entries(optional).filter(([, value]) => value !== undefined))
    shapes.push({ numHeads, numKvHeads, headDim, valueDim, ...given })
  }
  return shapes
}
