/** Phi-3, Phi-3.5 and Phi-4-mini: Llama with q, k, v in one matrix and gate, up in another; partial rotation. */
import { decoder } from '../decoder/config.ts'
import { layerWindows } from '../decoder/layer-rules.ts'
import { llamaNorms } from '../decoder/norms.ts'

export const phi3 = decoder({
  architecture: 'phi3',
  defaults: {
    vocabSize: 32064,
    hiddenSize: 3072,
    intermediateSize: 8192,
    numLayers: 32,
    numHeads: 32,
    epsilon: 1e-5,
    maxPositions: 4096,
  },
  norms: llamaNorms,
  hasFusedProjections: true,
  layers: (config, numLayers) => layerWindows({ window: null }, config, numLayers).map((window) => ({ window })),
  // Phi-4-mini writes these; transformers reads none of them.
  fixed: {
    attention_bias: [false],
    lm_head_bias: [false],
    full_attn_mod: [1],
    interpolate_factor: [1],
    mlp_bias: [false],
  },
})
