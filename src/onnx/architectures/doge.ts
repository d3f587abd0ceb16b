/**
 * Doge (transformers 5.18): a Llama-like decoder with norms on q and k, scaled residuals, and for each token and KV
 * head an importance computed from its values: exp(A * softplus(dt_proj(v))), added to the attention logits; only the
 * `keep_window_size` most important tokens are seen. Configs with `window_size` instead come from flash-dmattn, which
 * adds A * softplus(dt_proj(v)). Not here: the mixture-of-experts variants, rotary positions (src/positions).
 */
import { addAttention } from '../attention-node.ts'
import { embed, linear, rmsNorm, splitHeads, swiGlu } from '../blocks.ts'
import type { GraphBuilder } from '../builder.ts'
import type { ConfigReader } from '../config-reader.ts'
import { dataTypes } from '../schema.ts'
import { sameTensor } from '../weights.ts'
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
}

export const doge: Architecture = (config) => {
  const spec = readConfig(config)
  return { spec, buildGraph: (graph) => buildGraph(spec, graph) }
}

function readConfig(config: ConfigReader): DogeSpec {
  config.supports('is_moe', false)
  config.supports('sliding_window')
  config.supports('hidden_act', 'silu')
  config.supports('quantization_config')
  for (const key of moeKeys) config.value(key) // written by transformers for dense models too
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
  }
  config.refuseUnknown()
  return spec
}

/** Mixture-of-experts settings, without meaning while is_moe is false. */
const moeKeys = `num_experts num_experts_per_tok norm_topk_prob output_router_logits router_aux_loss_coef`.split(' ')

async function buildGraph(spec: DogeSpec, graph: GraphBuilder): Promise<GraphEnds> {
  const { vocabSize, hiddenSize, numLayers, epsilon } = spec
  const tokens = graph.input('tokens', dataTypes.int32, ['T'])
  let hidden = embed(graph, tokens, embedding, [vocabSize, hiddenSize])
  for (let layer = 0; layer < numLayers; layer++) hidden = addLayer(spec, graph, layer, hidden)
  const normed = rmsNorm(graph, hidden, 'model.norm.weight', { shape: ['T', hiddenSize], epsilon })
  const projection = (await usesEmbedding(spec, graph)) ? 'model.embed_tokens' : 'lm_head'
  const size = { inFeatures: hiddenSize, outFeatures: vocabSize, bias: false }
  return { tokens, hidden, logits: linear(graph, normed, projection, size) }
}

const embedding = 'model.embed_tokens.weight'

/** As transformers 5: a checkpoint that claims tied embeddings but stores another lm_head means that lm_head. */
async function usesEmbedding({ tied }: DogeSpec, { weights }: GraphBuilder): Promise<boolean> {
  const head = weights.get('lm_head.weight')
  const table = weights.get(embedding)
  return tied && (!head || (table !== undefined && (await sameTensor(head, table))))
}

function addLayer(spec: DogeSpec, graph: GraphBuilder, layer: number, input: string): string {
  const { hiddenSize, intermediateSize, mlpBias, epsilon } = spec
  const prefix = `model.layers.${layer}`
  const shape = ['T', hiddenSize] as const
  const normed = rmsNorm(graph, input, `${prefix}.input_layernorm.weight`, { shape, epsilon })
  const attended = addSelfAttention(spec, graph, layer, normed)
  const middle = addResidual(graph, input, attended, `${prefix}.input_residual`, hiddenSize)
  const normedAgain = rmsNorm(graph, middle, `${prefix}.post_attention_layernorm.weight`, { shape, epsilon })
  const fed = swiGlu(graph, normedAgain, `${prefix}.mlp`, { hiddenSize, intermediateSize, bias: mlpBias })
  return addResidual(graph, middle, fed, `${prefix}.post_attention_residual`, hiddenSize)
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
