/** What Qwen2 and Qwen3 share: upper layers may have a window. */
import type { ConfigReader } from '../config-reader.ts'
import type { LayerTraits } from './config.ts'
import { layerWindows } from './layer-rules.ts'

export const qwenDefaults = {
  vocabSize: 151936,
  hiddenSize: 4096,
  intermediateSize: 22016,
  numLayers: 32,
  numHeads: 32,
  numKvHeads: 32,
  maxPositions: 32_768,
}

export function qwenLayers(config: ConfigReader, numLayers: number): LayerTraits[] {
  const firstSliding = config.index('max_window_layers', 28)
  const slides = (_: ConfigReader, layer: number): boolean => layer >= firstSliding
  const rule = { window: 4096, enabledBy: 'use_sliding_window', slides }
  return layerWindows(rule, config, numLayers).map((window) => ({ window }))
}
