/** Llama 1 to 3 and what has its shape: SmolLM, SmolLM2, TinyLlama, Yi, and many more. */
import { decoder } from '../decoder/config.ts'
import { llamaNorms } from '../decoder/norms.ts'

export const llama = decoder({
  architecture: 'llama',
  defaults: {
    vocabSize: 32000,
    hiddenSize: 4096,
    intermediateSize: 11008,
    numLayers: 32,
    numHeads: 32,
    maxPositions: 2048,
  },
  norms: llamaNorms,
  attentionBias: 'attention_bias',
  hasMlpBias: true,
  fixed: { sliding_window: [], rope_interleaved: [false] },
})
