/** Gemma 3, text: five layers with a window for each one without, and a position encoding for each of the two kinds. */
import type { ConfigReader } from '../config-reader.ts'
import { decoder } from '../decoder/config.ts'
import { layerTypes, layerWindows, type WindowRule } from '../decoder/layer-rules.ts'
import { gemmaNorms } from '../decoder/norms.ts'
import { rotarySource } from '../decoder/rotary-source.ts'
import type { ModelSpec } from './contract.ts'

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
    const types = layerTypes(rule, config, numLayers)
    return layerWindows(rule, config, numLayers).map((window, layer) => ({ window, rotary: types[layer]! }))
  },
  rotary: rotaryOf,
  ignored: ['rope_local_base_freq'],
  fixed: { use_bidirectional_attention: [false] },
})

const rule: WindowRule = {
  window: 4096,
  slides: (config, layer) => {
    const key = config.has('_sliding_window_pattern') ? '_sliding_window_pattern' : 'sliding_window_pattern'
    return (layer + 1) % config.count(key, 6) !== 0
  },
}

/**
 * Newer configs nest rope_parameters by layer type. In older ones rope_theta and rope_scaling are of the layers that see
 * everything, and rope_local_base_freq is the theta of the others.
 */
function rotaryOf(config: ConfigReader): NonNullable<ModelSpec['rotary']> {
  const { rope_parameters, rope_scaling, rope_theta = 1_000_000, rope_local_base_freq = 10_000 } = config.all
  const parameters = (rope_parameters ?? {}) as Readonly<Record<string, object | null>>
  const isNested = Object.keys(parameters).some((key) => key.endsWith('_attention'))
  const nested = isNested ? parameters : { full_attention: parameters }
  const full = { ...nested.full_attention, ...((rope_scaling as object | null) ?? {}) }
  const source = (theta: unknown, entry: object): Readonly<Record<string, unknown>> =>
    rotarySource(config, { rope_theta: theta, rope_scaling: null, rope_parameters: entry })
  return {
    sliding_attention: source(rope_local_base_freq, nested.sliding_attention ?? {}),
    full_attention: source(rope_theta, full),
  }
}
