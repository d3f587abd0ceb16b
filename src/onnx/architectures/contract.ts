/** What an architecture gives: its numbers from config.json, and its graph. */
import type { GraphBuilder } from '../builder.ts'
import type { ConfigReader } from '../config-reader.ts'

/** What the layers above need of a model and its attention nodes don't say. */
export interface ModelSpec {
  readonly architecture: string
  readonly vocabSize: number
  readonly hiddenSize: number
  /** W that the model was trained with. */
  readonly window?: number
  /** max_position_embeddings, or its default. */
  readonly maxPositions?: number
  /** Whether the model computes an importance for each token and KV head. */
  readonly hasImportance: boolean
  /** The part of config.json that positions are read from (default: all of it). */
  readonly positions?: Readonly<Record<string, unknown>>
}

/** The values of a graph that have a meaning outside it. */
export interface GraphEnds {
  /** Input, int32 or int64, `[T]` or `[1, T]`. */
  readonly tokens: string
  /** Input, int64, of the same shape: the position of each token, for graphs that want it. */
  readonly positions?: string
  /** The residual stream that the head begins with, `[T, hiddenSize]`: the head needs nothing else. */
  readonly hidden: string
  /** Output, `[T, vocabSize]`. */
  readonly logits: string
  /** For graphs that bring tokens together outside of attention, so that a step must not hold two sequences. */
  readonly alone?: AloneEnds
}

/** What a step of one sequence takes and gives besides. */
export interface AloneEnds {
  readonly states: readonly GraphState[]
  /** Input, int64, `[1, P + T]`: all ones. */
  readonly mask?: string
  /** Input, int64, `[1]`: tokens of the text that is being read, those of later steps included. */
  readonly textLength?: string
  /** The node that brings tokens together, where it is none with a state. */
  readonly reason?: string
}

/** An input of a graph and the output that is its next value. */
export interface StatePair {
  readonly past: string
  readonly present: string
}

/** A state that passes through a graph: what a step gave is what the next one takes. */
export interface GraphState extends StatePair {
  /** TensorProto.DataType */
  readonly type: number
  /** Before the first token: sizes of the zeros that it consists of; an axis that grows with the text has 0. */
  readonly dims: readonly number[]
  /** Holds something of every token so far, as keys and values do. */
  readonly grows: boolean
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
