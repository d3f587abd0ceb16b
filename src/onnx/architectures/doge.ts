/**
 * Doge (transformers 5.18): a Llama-like decoder with norms on q and k, scaled residuals, and for each token and KV
 * head an importance computed from its values: exp(A * softplus(dt_proj(v))), added to the attention logits; only the
 * `keep_window_size` most important tokens are seen. Configs with `window_size` instead come from flash-dmattn, which
 * adds A * softplus(dt_proj(v)). With `is_moe`, retrieved experts (experts.ts) are added to the feed-forward block. Not
 * here: rotary positions (src/positions).
 */
import { addAttention } from '../attention-node.ts'
import { feedForward, linear, rmsNorm, splitHeads } from '../blocks.ts'
import type { GraphBuilder } from '../builder.ts'
import type { ConfigReader } from '../config-reader.ts'
import { addExperts, type ExpertSizes } from '../decoder/experts.ts'
import { embedTokens, projectLogits } from '../decoder/vocabulary.ts'
import { dataTypes } from '../schema.ts'
import type { Architecture, GraphEnds, ModelSpec } from './contract.ts'

interface DogeSpec extends ModelSpec {
  readonly numLayers: number
  readonly numHeads: number
  readonly numKvHeads: number
  readonly headDim: number
  readonly intermediateSize: number
  readonly epsilon: number
  readonly attentionBias: boolean
  readonly mlpBias: boolean
  readonly tied: boolean
  /** True: importance is exp(A * softplus(dt)); false: without exp. */
  readonly exponential: boolean
  /** Of the mixture-of-experts variants. */
  readonly experts?: ExpertSizes
}

export const doge: Architecture = (config) => {
  const spec = readConfig(config)
  return { spec, buildGraph: (graph) => buildGraph(spec, graph) }
}

function readConfig(config: ConfigReader): DogeSpec {
  config.supports('sliding_window')
  config.supports('hidden_act', 'silu')
  config.supports('quantization_config')
  const hiddenSize = config.count('hidden_size', 1024)
  const numHeads = config.count('num_attention_heads', 8)
  const numKvHeads = config.count('num_key_value_heads', numHeads)
  const headDim = config.count('head_dim', hiddenSize % numHeads === 0 ? hiddenSize / numHeads : undefined)
  if (numHeads % numKvHeads) throw config.invalid('num_key_value_heads', `a divisor of ${numHeads}`, numKvHeads)
  const exponential = config.has('keep_window_size') || !config.has('window_size')
  const spec = {
    architecture: 'doge',
    vocabSize: config.count('vocab_size', 32768),
    hiddenSize,
    numLayers: config.count('num_hidden_layers', 32),
    numHeads,
    numKvHeads,
    headDim,
    hasImportance: true,
    window: exponential ? config.count('keep_window_size', 2048) : config.count('window_size'),
    intermediateSize: config.count('intermediate_size', 2048),
    epsilon: config.positive('rms_norm_eps', 1e-6),
    attentionBias: config.flag('attention_bias', false),
    mlpBias: config.flag('mlp_bias', false),
    tied: config.flag('tie_word_embeddings', false),
    exponential,
    ...readExperts(config),
  }
  config.refuseUnknown()
  return spec
}

/** The settings are written by transformers for dense models too, and mean nothing there. */
function readExperts(config: ConfigReader): { experts?: ExpertSizes } {
  for (const key of ['output_router_logits', 'router_aux_loss_coef']) config.value(key) // of the training alone
  config.flag('norm_topk_prob', false) // divides a softmax by its sum, which is 1
  const numExperts = config.count('num_experts', 16384)
  const perToken = config.count('num_experts_per_tok', 64)
  const numKeys = Math.floor(Math.sqrt(numExperts))
  if (!config.flag('is_moe', false)) return {}
  if (perToken <= numKeys ** 2) return { experts: { numExperts, numKeys, perToken } }
  throw config.invalid('num_experts_per_tok', `at most ${numKeys ** 2}`, perToken)
}

async function buildGraph(spec: DogeSpec, graph: GraphBuilder): Promise<GraphEnds> {
  const { hiddenSize, numLayers, epsilon } = spec
  const tokens = graph.input('tokens', dataTypes.int32, ['T'])
  let hidden = embedTokens(graph, tokens, spec)
  for (let layer = 0; layer < numLayers; layer++) hidden = addLayer(spec, graph, layer, hidden)
  const normed = rmsNorm(graph, hidden, 'model.norm.weight', { shape: ['T', hiddenSize], epsilon })
  return { tokens, hidden, logits: await projectLogits(graph, normed, spec) }
}

function addLayer(spec: DogeSpec, graph: GraphBuilder, layer: number, input: string): string {
  const { hiddenSize, epsilon } = spec
  const prefix = `model.layers.${layer}`
  const shape = ['T', hiddenSize] as const
  const normed = rmsNorm(graph, input, `${prefix}.input_layernorm.weight`, { shape, epsilon })
  const attended = addSelfAttention(spec, graph, layer, normed)
  const middle = addResidual(graph, input, attended, `${prefix}.input_residual`, hiddenSize)
  const normedAgain = rmsNorm(graph, middle, `${prefix}.post_attention_layernorm.weight`, { shape, epsilon })
  const fed = addFeedForward(spec, graph, `${prefix}.mlp`, normedAgain)
  return addResidual(graph, middle, fed, `${prefix}.post_attention_residual`, hiddenSize)
}

function addFeedForward(spec: DogeSpec, graph: GraphBuilder, prefix: string, x: string): string {
  const { hiddenSize, intermediateSize, mlpBias: bias, experts } = spec
  const shared = feedForward(graph, x, prefix, { hiddenSize, intermediateSize, bias, activation: 'silu' })
  if (!experts) return shared
  const routed = addExperts(graph, x, prefix, { ...experts, hiddenSize })
  return graph.node('Add', [shared, routed], { shape: ['T', hiddenSize] })
}

/** scale * skip + x: the scale acts on the skip path. */
function addResidual(graph: GraphBuilder, skip: string, x: string, scale: string, hiddenSize: number): string {
  const shape = ['T', hiddenSize] as const
  return graph.node('Add', [graph.node('Mul', [skip, graph.weight(scale, [hiddenSize])], { shape }), x], { shape })
}

function addSelfAttention(spec: DogeSpec, graph: GraphBuilder, layer: number, x: string): string {
  const { hiddenSize, numHeads, numKvHeads, headDim, attentionBias: bias, epsilon } = spec
  const prefix = `model.layers.${layer}.self_attn`
  const project = (name: string, heads: number): string =>
    linear(graph, x, `${prefix}.${name}_proj`, { inFeatures: hiddenSize, outFeatures: heads * headDim, bias })
  const normed = (name: string, heads: number): string =>
    rmsNorm(graph, splitHeads(graph, project(name, heads), heads, headDim), `${prefix}.${name}_norm.weight`, {
      shape: ['T', heads, headDim],
      epsilon,
    })
  const value = project('v', numKvHeads)
  const output = addAttention(graph, {
    query: normed('q', numHeads),
    key: normed('k', numKvHeads),
    value,
    importance: addImportance(spec, graph, prefix, value),
    layer,
    numHeads,
    numKvHeads,
    headDim,
  })
  return linear(graph, output, `${prefix}.o_proj`, { inFeatures: numHeads * headDim, outFeatures: hiddenSize, bias })
}

/** `[T, K]` from the values of all KV heads of the same token: static, so what was evicted can never matter again. */
function addImportance(spec: DogeSpec, graph: GraphBuilder, prefix: string, value: string): string {
  const { numKvHeads, headDim, attentionBias: bias, exponential } = spec
  const shape = ['T', numKvHeads] as const
  const size = { inFeatures: numKvHeads * headDim, outFeatures: numKvHeads, bias }
  const softplus = graph.node('Softplus', [linear(graph, value, `${prefix}.dt_proj`, size)], { shape })
  const scaled = graph.node('Mul', [softplus, graph.weight(`${prefix}.A`, [numKvHeads])], { shape })
  return exponential ? graph.node('Exp', [scaled], { shape }) : scaled
}
