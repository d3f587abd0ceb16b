/** The layers of a model that have a cache of their own, from its attention nodes. */
import type { CacheShape, LayerShape } from '../cache/contract.ts'
import { type AttentionNode, layerShapes, type OnnxModel } from '../onnx/index.ts'
import { alibiSlopes } from '../positions/index.ts'

/** @throws KvasirError `invalid-file` when sink logits are no constants */
export async function cacheShape(
  model: OnnxModel,
  attention: readonly AttentionNode[],
  hasImportance: boolean,
): Promise<CacheShape> {
  const shapes = await layerShapes(model, attention)
  const shared = new Set(attention.map(({ sharesKeyValueWith }) => sharesKeyValueWith))
  const layers = attention.flatMap((node, i): LayerShape[] => {
    if (node.sharesKeyValueWith !== undefined) return []
    const slopes = node.alibi ? { alibiSlopes: alibiSlopes(node.numHeads) } : {}
    return [{ ...shapes[i]!, ...slopes, ...(shared.has(node.layer) && { isShared: true }) }]
  })
  return { numLayers: layers.length, layers, hasImportance }
}
