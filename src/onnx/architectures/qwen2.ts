/** Qwen2 and Qwen2.5: biases of q, k and v that no key of config.json announces. */
import { decoder } from '../decoder/config.ts'
import { llamaNorms } from '../decoder/norms.ts'
import { qwenDefaults, qwenLayers } from '../decoder/qwen.ts'

export const qwen2 = decoder({
  architecture: 'qwen2',
  defaults: qwenDefaults,
  norms: llamaNorms,
  attentionBias: { input: true, output: false },
  layers: qwenLayers,
  fixed: { use_mrope: [false] },
})
