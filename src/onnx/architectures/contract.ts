/** What an architecture gives: its numbers from config.json, and its graph. */
import type { CacheShape } from '../../cache/contract.ts'
import type { GraphBuilder } from '../builder.ts'
import type { ConfigReader } from '../config-reader.ts'

/** The numbers of a model that the layers above need. */
export interface ModelSpec extends CacheShape {
  readonly architecture: string
  readonly vocabSize: number
  readonly hiddenSize: number
  /** W that the model was trained with. */
  readonly window?: number
}

/** The values of a graph that have a meaning outside it. */
export interface GraphEnds {
  /** Input, int32 `[T]`. */
  readonly tokens: string
  /** The residual stream that the head begins with, `[T, hiddenSize]`: the head needs nothing else. */
  readonly hidden: string
  /** Output, `[T, vocabSize]`. */
  readonly logits: string
}

/**
 * One `model_type` of config.json.
 * @throws KvasirError `unsupported` or `invalid-file`, naming the key
 */
export type Architecture = (config: ConfigReader) => Blueprint

export interface Blueprint {
  readonly spec: ModelSpec
  /** Adds the nodes of the whole model. Attention nodes are as `attention-node.ts` says. */
  readonly buildGraph: (graph: GraphBuilder) => Promise<GraphEnds>
}
