/** The position encoding of each attention node of a model. */
import { layerRotaryEncodings, type RotaryEncoding, rotaryEncoding } from '../positions/index.ts'
import { KvasirError } from '../tensor/error.ts'
import type { ModelSpec } from './architectures/contract.ts'
import type { AttentionNode } from './attention-node.ts'

export interface RotarySources {
  readonly spec: Pick<ModelSpec, 'rotary'>
  /** config.json */
  readonly config: Readonly<Record<string, unknown>>
}

/**
 * Nodes that turn alike share one object; undefined where positions do nothing.
 * @throws KvasirError `unsupported` or `invalid-file`, as src/positions
 */
export function nodeEncodings(
  { spec, config }: RotarySources,
  attention: readonly AttentionNode[],
): (RotaryEncoding | undefined)[] {
  if (attention.every(({ rotary }) => rotary === undefined)) {
    const headDims = attention.map(({ headDim }) => headDim)
    return layerRotaryEncodings(config, attention.length, headDims)
  }
  const known = new Map<string, RotaryEncoding>()
  return attention.map(({ name, rotary = '', headDim }) => {
    if (rotary === 'none') return undefined
    const source = spec.rotary?.[rotary]
    if (!source) throw new KvasirError('internal', 'onnx', `no position encoding "${rotary}" for "${name}"`)
    const key = `${headDim} ${rotary}`
    const encoding = known.get(key) ?? rotaryEncoding(source, headDim, 1)
    known.set(key, encoding)
    return encoding
  })
}
