/** SmolLM3: every fourth layer without positions. (SmolLM and SmolLM2 are of type llama.) */
import type { ConfigReader } from '../config-reader.ts'
import { decoder } from '../decoder/config.ts'
import { layerWindows } from '../decoder/layer-rules.ts'
import { llamaNorms } from '../decoder/norms.ts'
import { rotarySource } from '../decoder/rotary-source.ts'

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
    const rotates = rotatedLayers(config, numLayers)
    const slides = (_: ConfigReader, layer: number): boolean => !rotates[layer]
    const windows = layerWindows({ window: null, enabledBy: 'use_sliding_window', slides }, config, numLayers)
    return windows.map((window, layer) => ({ window, rotary: rotates[layer] ? 'rope' : 'none' }))
  },
  rotary: (config) => ({ rope: rotarySource(config, { rope_theta: config.all.rope_theta ?? 2_000_000 }) }),
  ignored: ['max_window_layers'],
})

/** no_rope_layers has a 1 (despite its name) for each layer that rotates. */
function rotatedLayers(config: ConfigReader, numLayers: number): boolean[] {
  const interval = config.count('no_rope_layer_interval', 4)
  const listed = config.perLayer('no_rope_layers', numLayers, [0, 1])
  return Array.from({ length: numLayers }, (_, layer) => (listed ? listed[layer] === 1 : (layer + 1) % interval !== 0))
}
