/** Mistral 7B, Nemo, Small: a window in all layers of the first version, none in later ones. */
import { decoder } from '../decoder/config.ts'
import { layerWindows } from '../decoder/layer-rules.ts'
import { llamaNorms } from '../decoder/norms.ts'

export const mistral = decoder({
  architecture: 'mistral',
  defaults: {
    vocabSize: 32000,
    hiddenSize: 4096,
    intermediateSize: 14336,
    numLayers: 32,
    numHeads: 32,
    numKvHeads: 8,
    maxPositions: 131_072,
  },
  norms: llamaNorms,
  // An absent sliding_window means 4096; newer configs say null.
  layers: (config, numLayers) => layerWindows({ window: 4096 }, config, numLayers).map((window) => ({ window })),
})
