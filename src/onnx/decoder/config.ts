/**
 * From config.json to the numbers of a decoder, led by the traits of its model type. Defaults are those of the classes
 * in transformers 5: an absent key means what it means there.
 */

import type { Architecture, ModelSpec } from '../architectures/contract.ts'
import { type ActivationName, activationNames } from '../blocks.ts'
import type { ConfigReader } from '../config-reader.ts'
import { buildDecoder } from './graph.ts'

/** Names of the norms of a layer, where it has them. */
export interface NormPlaces {
  readonly beforeAttention?: string
  readonly afterAttention?: string
  readonly beforeFeedForward?: string
  readonly afterFeedForward?: string
}

/** What one attention layer has of its own. */
export interface LayerTraits {
  /** Keys that a query sees, itself included. */
  readonly window?: number
}

/** What distinguishes a model type. */
export interface DecoderTraits {
  readonly architecture: string
  /** Of the class in transformers, for keys that config.json leaves out. */
  readonly defaults: {
    readonly vocabSize: number
    readonly hiddenSize: number
    readonly intermediateSize: number
    readonly numLayers: number
    readonly numHeads: number
    /** Default: as many as heads. */
    readonly numKvHeads?: number
    /** Default: hiddenSize / numHeads. */
    readonly headDim?: number
    readonly epsilon?: number
    readonly tied?: boolean
    readonly maxPositions: number
  }
  readonly norms: NormPlaces
  /** Added to the weights of all norms. */
  readonly normOffset?: number
  /** RMS norms over each head of q and k, before rotation. */
  readonly hasQueryKeyNorm?: boolean
  /** The checkpoint has qkv_proj and gate_up_proj. */
  readonly hasFusedProjections?: boolean
  /** Biases of q, k, v (input) and o (output); `attention_bias` decides where a string says so. */
  readonly attentionBias?: 'attention_bias' | { readonly input: boolean; readonly output: boolean }
  /** Whether `mlp_bias` decides about biases in the feed-forward block. */
  readonly hasMlpBias?: boolean
  readonly activation?: { readonly key: string; readonly default: ActivationName }
  /** Embeddings are multiplied by sqrt(hiddenSize). */
  readonly scalesEmbedding?: boolean
  /** Default of query_pre_attn_scalar: logits are divided by its root instead of that of the head dim. */
  readonly queryScalar?: number
  /** Defaults of attn_logit_softcapping and final_logit_softcapping; null for none. */
  readonly softcaps?: { readonly attention: number | null; readonly logits: number | null }
  /** Windows of each layer (default: all keys). */
  readonly layers?: (config: ConfigReader, numLayers: number) => readonly LayerTraits[]
  /** Keys that its configs carry without a meaning, or that src/positions reads. */
  readonly ignored?: readonly string[]
  /** Keys of which only these values are computed here. */
  readonly fixed?: Readonly<Record<string, readonly unknown[]>>
}

export interface DecoderSpec extends ModelSpec {
  readonly maxPositions: number
  readonly layers: readonly LayerTraits[]
  readonly numHeads: number
  readonly numKvHeads: number
  readonly headDim: number
  readonly intermediateSize: number
  readonly epsilon: number
  readonly tied: boolean
  readonly norms: NormPlaces
  readonly normOffset: number
  readonly hasQueryKeyNorm: boolean
  readonly hasFusedProjections: boolean
  readonly attentionBias: { readonly input: boolean; readonly output: boolean }
  readonly mlpBias: boolean
  readonly activation: ActivationName
  readonly embeddingScale?: number
  /** Factor of q . k; 1 / sqrt(headDim) when absent. */
  readonly attentionScale?: number
  readonly attentionSoftcap?: number
  readonly logitSoftcap?: number
}

/** The architecture of a model type of the Llama family. */
export function decoder(traits: DecoderTraits): Architecture {
  return (config) => {
    const spec = readDecoder(traits, config)
    return { spec, buildGraph: (graph) => buildDecoder(spec, graph) }
  }
}

function readDecoder(traits: DecoderTraits, config: ConfigReader): DecoderSpec {
  const { defaults, architecture, norms, layers, activation } = traits
  config.supports('quantization_config')
  for (const [key, values] of Object.entries(traits.fixed ?? {})) config.supports(key, ...values)
  for (const key of traits.ignored ?? []) config.value(key)
  const numLayers = config.count('num_hidden_layers', defaults.numLayers)
  const sizes = readSizes(traits, config)
  const { key, default: fallback } = activation ?? { key: 'hidden_act', default: 'silu' }
  const spec: DecoderSpec = {
    architecture,
    hasImportance: false,
    vocabSize: config.count('vocab_size', defaults.vocabSize),
    ...sizes,
    ...(traits.scalesEmbedding && { embeddingScale: Math.sqrt(sizes.hiddenSize) }),
    maxPositions: config.count('max_position_embeddings', defaults.maxPositions),
    intermediateSize: config.count('intermediate_size', defaults.intermediateSize),
    epsilon: config.positive('rms_norm_eps', defaults.epsilon ?? 1e-6),
    tied: config.flag('tie_word_embeddings', defaults.tied ?? false),
    norms,
    normOffset: traits.normOffset ?? 0,
    hasQueryKeyNorm: traits.hasQueryKeyNorm ?? false,
    hasFusedProjections: traits.hasFusedProjections ?? false,
    attentionBias: readBias(traits, config),
    mlpBias: traits.hasMlpBias === true && config.flag('mlp_bias', false),
    activation: config.choice(key, activationNames, fallback),
    ...readScales(traits, config),
    layers: layers?.(config, numLayers) ?? Array.from({ length: numLayers }, () => ({})),
  }
  config.refuseUnknown()
  return spec
}

function readSizes({ defaults }: DecoderTraits, config: ConfigReader) {
  const hiddenSize = config.count('hidden_size', defaults.hiddenSize)
  const numHeads = config.count('num_attention_heads', defaults.numHeads)
  // Written out as null it means as many as heads, whatever the default of the class.
  const numKvHeads = config.count(
    'num_key_value_heads',
    config.isNull('num_key_value_heads') ? numHeads : (defaults.numKvHeads ?? numHeads),
  )
  if (numHeads % numKvHeads) throw config.invalid('num_key_value_heads', `a divisor of ${numHeads}`, numKvHeads)
  const headDim = config.count(
    'head_dim',
    defaults.headDim ?? (hiddenSize % numHeads === 0 ? hiddenSize / numHeads : undefined),
  )
  return { hiddenSize, numHeads, numKvHeads, headDim }
}

function readBias({ attentionBias }: DecoderTraits, config: ConfigReader): DecoderSpec['attentionBias'] {
  if (attentionBias !== 'attention_bias') return attentionBias ?? { input: false, output: false }
  const bias = config.flag('attention_bias', false)
  return { input: bias, output: bias }
}

function readScales({ queryScalar, softcaps }: DecoderTraits, config: ConfigReader) {
  const attention = softcaps && config.optional('attn_logit_softcapping', softcaps.attention)
  const logits = softcaps && config.optional('final_logit_softcapping', softcaps.logits)
  return {
    ...(queryScalar && { attentionScale: 1 / Math.sqrt(config.positive('query_pre_attn_scalar', queryScalar)) }),
    ...(attention !== undefined && { attentionSoftcap: attention }),
    ...(logits !== undefined && { logitSoftcap: logits }),
  }
}
