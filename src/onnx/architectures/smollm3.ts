/** SmolLM3: every fourth layer without positions. (SmolLM and SmolLM2 are of type llama.) */
import { rotatedLayers } from '../../positions/index.ts'
import { decoder } from '../decoder/config.ts'
import { layerWindows } from '../decoder/layer-rules.ts'
import { llamaNorms } from '../decoder/norms.ts'

export const smollm3 = decoder({
  architecture: 'smollm3',
  defaults: {
    vocabSize: 128_256,
    hiddenSize: 2048,
    intermediateSize: 11008,
    numLayers: 36,
    numHeads: 16,
    numKvHeads: 4,
    tied: true,
    maxPositions: 32_768,
  },
  norms: llamaNorms,
  attentionBias: 'attention_bias',
  hasMlpBias: true,
  layers: (config, numLayers) => {
    const rotates = rotatedLayers(config.all, numLayers)
    const slides = (_: unknown, layer: number): boolean => !rotates[layer]
    const rule = { window: null, enabledBy: 'use_sliding_window', slides }
    return layerWindows(rule, config, numLayers).map((window) => ({ window }))
  },
  ignored: ['max_window_layers', 'no_rope_layers', 'no_rope_layer_interval'],
})
