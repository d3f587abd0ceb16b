/** Gemma 3, text: five layers with a window for each one without, and a position encoding for each of the two kinds. */
import { layerTypes } from '../../positions/index.ts'
import { decoder } from '../decoder/config.ts'
import { layerWindows } from '../decoder/layer-rules.ts'
import { gemmaNorms } from '../decoder/norms.ts'

export const gemma3_text = decoder({
  architecture: 'gemma3_text',
  defaults: {
    vocabSize: 262_208,
    hiddenSize: 2304,
    intermediateSize: 9216,
    numLayers: 26,
    numHeads: 8,
    numKvHeads: 4,
    headDim: 256,
    tied: true,
    maxPositions: 131_072,
  },
  norms: gemmaNorms,
  normOffset: 1,
  hasQueryKeyNorm: true,
  attentionBias: 'attention_bias',
  activation: { key: 'hidden_activation', default: 'gelu_pytorch_tanh' },
  scalesEmbedding: true,
  queryScalar: 256,
  softcaps: { attention: null, logits: null },
  layers: (config, numLayers) => {
    // Windows and positions go by the same types.
    const types = layerTypes(config.all, numLayers)
    const slides = (_: unknown, layer: number): boolean => types[layer] === 'sliding_attention'
    return layerWindows({ window: 4096, slides }, config, numLayers).map((window) => ({ window }))
  },
  ignored: ['rope_local_base_freq', '_sliding_window_pattern', 'sliding_window_pattern'],
  fixed: { use_bidirectional_attention: [false] },
})
