/** Gemma 2: norms around both blocks, soft caps, and a window in every other layer, the first included. */
import { decoder } from '../decoder/config.ts'
import { layerWindows } from '../decoder/layer-rules.ts'
import { gemmaNorms } from '../decoder/norms.ts'

export const gemma2 = decoder({
  architecture: 'gemma2',
  defaults: {
    vocabSize: 256000,
    hiddenSize: 2304,
    intermediateSize: 9216,
    numLayers: 26,
    numHeads: 8,
    numKvHeads: 4,
    headDim: 256,
    tied: true,
    maxPositions: 8192,
  },
  norms: gemmaNorms,
  normOffset: 1,
  attentionBias: 'attention_bias',
  activation: { key: 'hidden_activation', default: 'gelu_pytorch_tanh' },
  scalesEmbedding: true,
  queryScalar: 256,
  softcaps: { attention: 50, logits: 30 },
  layers: (config, numLayers) =>
    layerWindows({ window: 4096, slides: (_, layer) => layer % 2 === 0 }, config, numLayers).map((window) => ({
      window,
    })),
  ignored: ['hidden_act'], // hidden_activation is what counts
  fixed: { use_bidirectional_attention: [false] },
})
