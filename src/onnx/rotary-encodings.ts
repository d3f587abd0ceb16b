/** The position encoding of each attention node of a model. */
import { layerRotaryEncodings, type RotaryEncoding } from '../positions/index.ts'
import type { ModelSpec } from './architectures/contract.ts'
import type { AttentionNode } from './attention-node.ts'

export interface RotarySources {
  readonly spec: Pick<ModelSpec, 'positions'>
  /** config.json */
  readonly config: Readonly<Record<string, unknown>>
}

/**
 * Nodes that turn alike share one object; undefined where positions do nothing.
 * @param attention one node a layer, in order
 * @throws KvasirError `unsupported` or `invalid-file`, as src/positions
 */
export function nodeEncodings(
  { spec, config }: RotarySources,
  attention: readonly AttentionNode[],
): (RotaryEncoding | undefined)[] {
  const headDims = attention.map(({ headDim }) => headDim)
  return layerRotaryEncodings(spec.positions ?? config, attention.length, headDims)
}
