/** config.json of models that are filled with random numbers, and the tensors that they need. */
import type { DecoderSizes } from '../../src/onnx/index.ts'
import type { ShapeName } from './contract.ts'

export interface ShapeConfig extends DecoderSizes {
  readonly model_type: 'llama' | 'qwen3'
  readonly rope_theta: number
}

/** As published, but for the positions: all have room for the same contexts. */
export const shapes = {
  'smollm2-135m': {
    ...{ model_type: 'llama', vocab_size: 49_152, hidden_size: 576, intermediate_size: 1536, num_hidden_layers: 30 },
    ...{ num_attention_heads: 9, num_key_value_heads: 3, head_dim: 64, rms_norm_eps: 1e-5, rope_theta: 100_000 },
  },
  'qwen3-0.6b': {
    ...{ model_type: 'qwen3', vocab_size: 151_936, hidden_size: 1024, intermediate_size: 3072, num_hidden_layers: 28 },
    ...{ num_attention_heads: 16, num_key_value_heads: 8, head_dim: 128, rms_norm_eps: 1e-6, rope_theta: 1_000_000 },
  },
  tiny: {
    ...{ model_type: 'qwen3', vocab_size: 512, hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2 },
    ...{ num_attention_heads: 4, num_key_value_heads: 2, head_dim: 16, rms_norm_eps: 1e-6, rope_theta: 10_000 },
  },
} as const satisfies Record<ShapeName, ShapeConfig>

/** Also what the tables of rotations in the exported graph hold. */
export const maxPositions = 40_960

export function configOf(name: ShapeName): Readonly<Record<string, unknown>> {
  const { model_type: type } = shapes[name]
  const own = type === 'qwen3' ? { use_sliding_window: false } : { mlp_bias: false }
  const common = { hidden_act: 'silu', attention_bias: false, tie_word_embeddings: true }
  return { ...shapes[name], ...common, ...own, max_position_embeddings: maxPositions }
}

/** A tensor of random numbers around `mean`, at most `width` away. */
export interface RandomTensor {
  readonly name: string
  readonly shape: readonly number[]
  readonly mean: number
  readonly width: number
}

/** Widths as in a fresh model: what a row adds up to has a spread of 1. */
export function tensorsOf(config: ShapeConfig): RandomTensor[] {
  const { vocab_size: vocab, hidden_size: hidden, num_hidden_layers: layers } = config
  const list = [matrix('model.embed_tokens', vocab, hidden)]
  for (let n = 0; n < layers; n++) list.push(...layerTensors(config, `model.layers.${n}`))
  return [...list, norm('model.norm', hidden)]
}

function layerTensors(config: ShapeConfig, prefix: string): RandomTensor[] {
  const { hidden_size: hidden, intermediate_size: wide, head_dim: headDim } = config
  const [heads, kvHeads] = [config.num_attention_heads * headDim, config.num_key_value_heads * headDim]
  const hasHeadNorms = config.model_type === 'qwen3'
  return [
    norm(`${prefix}.input_layernorm`, hidden),
    norm(`${prefix}.post_attention_layernorm`, hidden),
    matrix(`${prefix}.self_attn.q_proj`, heads, hidden),
    matrix(`${prefix}.self_attn.k_proj`, kvHeads, hidden),
    matrix(`${prefix}.self_attn.v_proj`, kvHeads, hidden),
    matrix(`${prefix}.self_attn.o_proj`, hidden, heads),
    matrix(`${prefix}.mlp.gate_proj`, wide, hidden),
    matrix(`${prefix}.mlp.up_proj`, wide, hidden),
    matrix(`${prefix}.mlp.down_proj`, hidden, wide),
    ...(hasHeadNorms ? ['q', 'k'].map((name) => norm(`${prefix}.self_attn.${name}_norm`, headDim)) : []),
  ]
}

const norm = (name: string, size: number): RandomTensor => ({
  ...{ name: `${name}.weight`, shape: [size], mean: 1, width: 0.2 },
})
const matrix = (name: string, rows: number, columns: number): RandomTensor => ({
  ...{ name: `${name}.weight`, shape: [rows, columns], mean: 0, width: Math.sqrt(3 / columns) },
})

/** Bytes of K and V in f32 that a token costs. */
export function kvBytesPerToken({ num_hidden_layers, num_key_value_heads, head_dim }: ShapeConfig): number {
  return 2 * 4 * num_hidden_layers * num_key_value_heads * head_dim
}
