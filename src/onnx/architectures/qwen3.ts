/** Qwen3 (dense): norms on the heads of q and k, a head dim of its own. */
import { decoder } from '../decoder/config.ts'
import { llamaNorms } from '../decoder/norms.ts'
import { qwenDefaults, qwenLayers } from '../decoder/qwen.ts'

export const qwen3 = decoder({
  architecture: 'qwen3',
  defaults: { ...qwenDefaults, headDim: 128 },
  norms: llamaNorms,
  hasQueryKeyNorm: true,
  attentionBias: 'attention_bias',
  layers: qwenLayers,
})
