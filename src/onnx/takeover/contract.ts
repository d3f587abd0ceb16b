/** What a pattern says of one attention that it has found in a graph. */
import type { OnnxModel, OnnxNode } from '../schema.ts'
import type { GraphEditor } from './editor.ts'

/** Where the rows of a head lie: `[1, T, H * D]`, `[1, T, H, D]` (the same memory), `[1, H, T, D]`, or `[H, T, D]`. */
export interface Rows {
  readonly name: string
  readonly isHeadsFirst: boolean
  /** Heads first, without an axis for the batch. */
  readonly hasNoBatch?: boolean
  /** Heads first, the two last axes exchanged: `[1, H, D, T]` or `[H, D, T]`. */
  readonly isTransposed?: boolean
  /** `[1, T * H, D]`: tokens first, a row for each head. */
  readonly isRowPerHead?: boolean
}

/** One attention, as a pattern has found it. */
export interface FoundAttention {
  /** Of the pattern, for people. */
  readonly kind: string
  /** The node in whose place ours comes. */
  readonly anchor: OnnxNode
  /** Nodes that must come before: what splits packed projections. */
  readonly before?: readonly OnnxNode[]
  readonly query: Rows
  /** Absent, as `value` is, where `sharesStateOf` is given. */
  readonly key?: Rows
  readonly value?: Rows
  readonly output: Rows
  readonly numHeads: number
  readonly numKvHeads: number
  readonly headDim: number
  readonly valueDim: number
  readonly scale?: number | undefined
  readonly softcap?: number | undefined
  readonly window?: number | undefined
  readonly sinkLogits?: string | undefined
  readonly rotary?: GraphRotation | undefined
  /** The cache that is read and written: `past_key_values.0`. */
  readonly state: string
  /** Reads the keys and values of another state and has none of its own. */
  readonly sharesStateOf?: string
  /** What decides who sees whom; absent: causal. */
  readonly visibility?: Visibility
}

/** Rotation by tables of cosines and sines that lie in the graph. */
export interface GraphRotation {
  /** Names of constants `[rows, R]`. */
  readonly cos: string
  readonly sin: string
  readonly isInterleaved: boolean
}

export type LogitLayout = 'heads' | 'heads without batch' | 'tokens'

/** A part of the graph that says which keys a query sees: it is run on small inputs to learn the rule. */
export interface Visibility {
  /** The value to look at. */
  readonly value: string
  /** `additive` and `boolean` masks `[1 or B, 1 or H, T, S]`; `probabilities` of logits that are given as `logits`. */
  readonly kind: 'additive' | 'boolean' | 'probabilities'
  readonly logits?: string
  /** How logits and probabilities lie: `[1, H, T, S]` (default), `[H, T, S]`, or `[1, T * H, S]`. */
  readonly layout?: LogitLayout
  /** The attention hides keys after a query by itself: what the mask says of them has no effect. */
  readonly isCausalBesides?: boolean
}

/** Feeds and results of `OpenGraph`: numbers by name, whatever their type in the graph. */
export interface Numbers {
  readonly dims: readonly number[]
  readonly values: ArrayLike<number>
}

/** Runs small parts of a graph; the layer above has ONNX Runtime. */
export type OpenGraph = (model: OnnxModel) => Promise<{
  run(feeds: Readonly<Record<string, Numbers>>): Promise<Readonly<Record<string, Numbers>>>
  release(): Promise<void>
}>

/** Told of a node that stays as it is, and why. Throws what is no refusal. */
export type Refused = (error: unknown) => void

/** One way in which published graphs write attention. */
export interface Pattern {
  /** Finds all attentions of this kind; `refused` is told of those that it knows but can't take over. */
  readonly find: (editor: GraphEditor, refused: Refused) => Promise<FoundAttention[]>
}
