/**
 * What the code of a model family says about positions and its config.json may leave out, by `model_type`
 * (transformers 5.18, which does not write what equals a default). Data only; what config.json says comes first.
 */
import type { RotaryPairing } from './contract.ts'

export interface RotaryFamily {
  /** Default: half. */
  readonly pairing?: RotaryPairing
  /** rope_theta (default 10,000) */
  readonly theta?: number
  /** rope_theta of sliding layers, which have plain RoPE where the dictionary is not by layer type; `theta`: the same. */
  readonly localTheta?: number | 'theta'
  /** partial_rotary_factor (default 1) */
  readonly partialFactor?: number
  /** Components that are rotated, in place of a factor. */
  readonly rotaryDim?: number
  /** original_max_position_embeddings */
  readonly originalMaxPositions?: number
  /** Names of types that mean others here. */
  readonly types?: Readonly<Record<string, string>>
  /** rope_parameters */
  readonly parameters?: Readonly<Record<string, unknown>>
  /** Every n-th layer is a full_attention layer, the others are sliding_attention, where layer_types is absent. */
  readonly slidingWindowPattern?: number
  /** Every n-th layer has no rotation, where neither no_rope_layers nor no_rope_layer_interval is there. */
  readonly noRopeInterval?: number
  /** Only layers of type sliding_attention are rotated, unless the config says that there is no window. */
  readonly rotatesSlidingOnly?: boolean
}

const interleaved = 'interleaved'

const families: Readonly<Record<string, RotaryFamily>> = {
  afmoe: { rotatesSlidingOnly: true },
  bitnet: { theta: 500000 },
  codegen: { pairing: interleaved, rotaryDim: 64 },
  cohere: { pairing: interleaved, theta: 500000 },
  cohere2: { pairing: interleaved, slidingWindowPattern: 4, rotatesSlidingOnly: true },
  deepseek_v2: { pairing: interleaved },
  deepseek_v3: { pairing: interleaved },
  ernie4_5: { pairing: interleaved, theta: 500000 },
  ernie4_5_moe: { pairing: interleaved, theta: 500000 },
  exaone4: { slidingWindowPattern: 4, rotatesSlidingOnly: true },
  gemma3_text: { theta: 1e6, localTheta: 10000, slidingWindowPattern: 6 },
  gemma3n_text: { theta: 1e6, localTheta: 10000, slidingWindowPattern: 5 },
  gemma4_text: {
    parameters: {
      sliding_attention: { rope_type: 'default', rope_theta: 10000 },
      full_attention: { rope_type: 'proportional', rope_theta: 1e6, partial_rotary_factor: 0.25 },
    },
  },
  glm: { pairing: interleaved, partialFactor: 0.5 },
  glm4: { pairing: interleaved, partialFactor: 0.5 },
  gpt_neox: { partialFactor: 0.25 },
  gpt_oss: {
    theta: 150000,
    parameters: {
      rope_type: 'yarn',
      factor: 32,
      beta_fast: 32,
      beta_slow: 1,
      truncate: false,
      original_max_position_embeddings: 4096,
    },
  },
  gptj: { pairing: interleaved, rotaryDim: 64 },
  helium: { pairing: interleaved, theta: 100000 },
  lfm2: { theta: 1e6 },
  llama4_text: { pairing: interleaved, theta: 500000, noRopeInterval: 4 },
  minimax: { theta: 1e6 },
  minimax_m2: { theta: 5e6 },
  mixtral: { theta: 1e6 },
  nemotron: { partialFactor: 0.5 },
  olmo3: { theta: 500000, localTheta: 'theta', slidingWindowPattern: 4 },
  persimmon: { partialFactor: 0.5 },
  phi: { partialFactor: 0.5 },
  phi3: { originalMaxPositions: 4096, types: { yarn: 'longrope' } },
  phimoe: { theta: 1e6 },
  smollm3: { theta: 2e6, noRopeInterval: 4 },
  stablelm: { partialFactor: 0.25 },
}

export function rotaryFamily({ model_type: type }: Readonly<Record<string, unknown>>): RotaryFamily {
  return typeof type === 'string' && Object.hasOwn(families, type) ? (families[type] as RotaryFamily) : {}
}
