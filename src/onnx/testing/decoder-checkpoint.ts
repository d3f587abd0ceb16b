/** Writes small random checkpoints of the decoders that transformers knows, with its names for keys and tensors. */
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { DecoderSizes } from '../decoder/keys.ts'
import { randomTensors, type TensorSpread, type TestTensor, writeCheckpoint } from './checkpoint-files.ts'

export interface DecoderCheckpointOptions {
  /** Keys of config.json to add or replace; undefined removes, null is written. */
  readonly config?: Readonly<Record<string, unknown>>
  readonly dtype?: 'F32' | 'F16' | 'BF16'
  readonly shards?: number
  readonly seed?: number
  /** Changes the tensors before they are written. */
  readonly change?: (tensors: Map<string, TestTensor>) => void
}

export interface DecoderCheckpoint {
  readonly folder: string
  readonly config: DecoderConfig
  readonly tensors: ReadonlyMap<string, TestTensor>
}

/** The keys that all of them have, and any others. */
export interface DecoderConfig extends DecoderSizes, Readonly<Record<string, unknown>> {
  readonly model_type: DecoderType
  readonly tie_word_embeddings: boolean
}

/** Keys of config.json that a type has besides. Windows are shorter than the texts of the tests. */
const typeKeys = {
  llama: { hidden_act: 'silu', rope_theta: 10000, attention_bias: false, mlp_bias: false },
  mistral: { hidden_act: 'silu', rope_theta: 10000, sliding_window: 7 },
  qwen2: { hidden_act: 'silu', rope_theta: 1e6, use_sliding_window: true, sliding_window: 6, max_window_layers: 2 },
  qwen3: {
    hidden_act: 'silu',
    rope_theta: 1e6,
    attention_bias: false,
    use_sliding_window: false,
    sliding_window: null,
  },
  gemma2: {
    hidden_act: 'gelu_pytorch_tanh',
    hidden_activation: 'gelu_pytorch_tanh',
    rope_theta: 10000,
    sliding_window: 5,
    query_pre_attn_scalar: 24,
    attn_logit_softcapping: 2.5,
    final_logit_softcapping: 3,
  },
  gemma3_text: {
    hidden_activation: 'gelu_pytorch_tanh',
    rope_theta: 1e6,
    rope_local_base_freq: 10000,
    rope_scaling: { rope_type: 'linear', factor: 8 },
    sliding_window: 5,
    sliding_window_pattern: 3,
    query_pre_attn_scalar: 24,
  },
  phi3: { hidden_act: 'silu', rope_theta: 10000, sliding_window: 9, partial_rotary_factor: 0.5, rms_norm_eps: 1e-5 },
  smollm3: { hidden_act: 'silu', rope_theta: 5e6, no_rope_layer_interval: 2, use_sliding_window: false },
} as const satisfies Record<string, Readonly<Record<string, unknown>>>

export type DecoderType = keyof typeof typeKeys

export const decoderTypes = Object.keys(typeKeys) as DecoderType[]

const tiedTypes: readonly DecoderType[] = ['gemma2', 'gemma3_text', 'smollm3']

export async function writeDecoderCheckpoint(
  type: DecoderType,
  options: DecoderCheckpointOptions = {},
): Promise<DecoderCheckpoint> {
  const { dtype = 'F32', shards = 1, seed = 1, change } = options
  const config: DecoderConfig = {
    model_type: type,
    vocab_size: 260,
    hidden_size: 48,
    intermediate_size: 80,
    num_hidden_layers: 4,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    head_dim: type === 'phi3' ? 32 : 16, // half of it is rotated
    rms_norm_eps: 1e-6,
    max_position_embeddings: 256,
    tie_word_embeddings: tiedTypes.includes(type),
    ...typeKeys[type],
    ...options.config,
  }
  const folder = await mkdtemp(join(tmpdir(), `kvasir-${type}-`))
  const tensors = randomTensors(tensorList(config), dtype, seed)
  change?.(tensors)
  await writeCheckpoint(folder, { tensors, shards, config })
  return { folder, config, tensors }
}

/** Spreads are as large as keeps logits of order 1, so that errors show. */
function tensorList(config: DecoderConfig): TensorSpread[] {
  const { model_type: type, vocab_size: vocab, hidden_size: hidden, num_hidden_layers: layers } = config
  const isGemma = type === 'gemma2' || type === 'gemma3_text'
  const mean = isGemma ? 0 : 1 // Gemma adds 1 to the weights of its norms
  const list: TensorSpread[] = []
  for (let n = 0; n < layers; n++) {
    const norms = ['input', 'post_attention', ...(isGemma ? ['pre_feedforward', 'post_feedforward'] : [])]
    for (const norm of norms) list.push([`model.layers.${n}.${norm}_layernorm.weight`, [hidden], mean, 0.2])
    list.push(...attentionTensors(config, `model.layers.${n}.self_attn`, mean))
    list.push(...feedForwardTensors(config, `model.layers.${n}.mlp`))
  }
  list.push(['model.embed_tokens.weight', [vocab, hidden], 0, isGemma ? 1 / Math.sqrt(hidden) : 1])
  list.push(['model.norm.weight', [hidden], mean, 0.2])
  if (!config.tie_word_embeddings) list.push(['lm_head.weight', [vocab, hidden], 0, 1 / Math.sqrt(hidden)])
  return list
}

function attentionTensors(config: DecoderConfig, prefix: string, mean: number): TensorSpread[] {
  const { model_type: type, hidden_size: hidden, head_dim: headDim } = config
  const [heads, kvHeads] = [config.num_attention_heads * headDim, config.num_key_value_heads * headDim]
  const bias = { input: config.attention_bias === true || type === 'qwen2', output: config.attention_bias === true }
  const list = linear(`${prefix}.o_proj`, hidden, heads, bias.output)
  if (type === 'phi3') list.push(...linear(`${prefix}.qkv_proj`, heads + 2 * kvHeads, hidden, false))
  else {
    list.push(...linear(`${prefix}.q_proj`, heads, hidden, bias.input))
    for (const name of ['k', 'v']) list.push(...linear(`${prefix}.${name}_proj`, kvHeads, hidden, bias.input))
  }
  if (type !== 'qwen3' && type !== 'gemma3_text') return list
  return [...list, ...['q', 'k'].map((name): TensorSpread => [`${prefix}.${name}_norm.weight`, [headDim], mean, 0.2])]
}

function feedForwardTensors(config: DecoderConfig, prefix: string): TensorSpread[] {
  const { model_type: type, hidden_size: hidden, intermediate_size: wide } = config
  const bias = config.mlp_bias === true
  const list = linear(`${prefix}.down_proj`, hidden, wide, bias)
  if (type === 'phi3') return [...list, ...linear(`${prefix}.gate_up_proj`, 2 * wide, hidden, false)]
  return [...list, ...['gate', 'up'].flatMap((name) => linear(`${prefix}.${name}_proj`, wide, hidden, bias))]
}

function linear(name: string, out: number, features: number, bias: boolean): TensorSpread[] {
  const weight: TensorSpread = [`${name}.weight`, [out, features], 0, 1 / Math.sqrt(features)]
  return bias ? [weight, [`${name}.bias`, [out], 0, 0.3]] : [weight]
}
