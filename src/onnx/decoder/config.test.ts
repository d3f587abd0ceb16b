/** What config.json of a decoder means: absent keys, nulls, listed layers, and what is refused. */
import { describe, expect, it } from 'vitest'
import { layerRotaryEncodings } from '../../positions/index.ts'
import { type ArchitectureName, architectures } from '../architectures/index.ts'
import { ConfigReader } from '../config-reader.ts'
import type { DecoderSpec } from './config.ts'

function read(type: ArchitectureName, keys: Readonly<Record<string, unknown>> = {}): DecoderSpec {
  const sizes = { hidden_size: 64, num_attention_heads: 4, num_hidden_layers: 6 }
  return architectures[type](new ConfigReader({ model_type: type, ...sizes, ...keys }, 'config.json'))
    .spec as DecoderSpec
}

const windows = (spec: DecoderSpec) => spec.layers.map(({ window }) => window)
const [full, sliding] = ['full_attention', 'sliding_attention']

describe('an absent key means what it means in transformers', () => {
  it('sizes', () => {
    expect(read('llama')).toMatchObject({ headDim: 16, numKvHeads: 4, vocabSize: 32000, tied: false, epsilon: 1e-6 })
    expect(read('mistral', { num_attention_heads: 8 })).toMatchObject({ numKvHeads: 8, headDim: 8 })
    expect(read('qwen3', { num_attention_heads: 64 })).toMatchObject({ numKvHeads: 32, headDim: 128 })
    expect(read('gemma2')).toMatchObject({ numKvHeads: 4, headDim: 256, tied: true, activation: 'gelu_pytorch_tanh' })
    expect(read('gemma3_text')).toMatchObject({ numKvHeads: 4, headDim: 256, tied: true })
    expect(read('phi3')).toMatchObject({ numKvHeads: 4, epsilon: 1e-5, activation: 'silu' })
    expect(read('smollm3')).toMatchObject({ numKvHeads: 4, tied: true })
  })

  it('but KV heads that are null are as many as heads', () => {
    expect(read('mistral', { num_attention_heads: 16, num_key_value_heads: null }).numKvHeads).toBe(16)
  })

  it('windows, which null switches off', () => {
    expect(windows(read('mistral', { num_attention_heads: 8 }))).toEqual(new Array(6).fill(4096))
    expect(windows(read('mistral', { num_attention_heads: 8, sliding_window: null }))).toEqual(
      new Array(6).fill(undefined),
    )
    expect(windows(read('phi3'))).toEqual(new Array(6).fill(undefined))
    expect(windows(read('gemma2'))).toEqual([4096, undefined, 4096, undefined, 4096, undefined])
    expect(windows(read('gemma3_text', { sliding_window: 9 }))).toEqual([9, 9, 9, 9, 9, undefined])
    expect(windows(read('qwen2', { num_attention_heads: 32 }))).toEqual(new Array(6).fill(undefined))
  })

  it('soft caps and scales', () => {
    const gemma2 = read('gemma2')
    expect(gemma2).toMatchObject({ attentionSoftcap: 50, logitSoftcap: 30, attentionScale: 1 / 16, embeddingScale: 8 })
    const uncapped = read('gemma2', { attn_logit_softcapping: null, final_logit_softcapping: null })
    expect(uncapped.attentionSoftcap).toBeUndefined()
    expect(uncapped.logitSoftcap).toBeUndefined()
    expect(read('gemma3_text').attentionSoftcap).toBeUndefined()
    expect(read('llama').attentionScale).toBeUndefined()
  })
})

describe('layers', () => {
  const qwen = { num_attention_heads: 32, use_sliding_window: true, sliding_window: 7 }

  it('slide from max_window_layers on, or as layer_types says', () => {
    expect(windows(read('qwen2', { ...qwen, max_window_layers: 4 }))).toEqual([...new Array(4).fill(undefined), 7, 7])
    const types = [sliding, full, full, sliding, full, full]
    expect(windows(read('qwen2', { ...qwen, max_window_layers: 0, layer_types: types }))).toEqual(
      types.map((type) => (type === sliding ? 7 : undefined)),
    )
  })

  it('slide in a pattern under its old and its new name', () => {
    const expected = [4, undefined, 4, undefined, 4, undefined]
    for (const key of ['sliding_window_pattern', '_sliding_window_pattern']) {
      expect(windows(read('gemma3_text', { sliding_window: 4, [key]: 2 })), key).toEqual(expected)
    }
  })

  it('of SmolLM3 without positions are those that slide', () => {
    const slides = { use_sliding_window: true, sliding_window: 5 }
    expect(windows(read('smollm3', slides))).toEqual([undefined, undefined, undefined, 5, undefined, undefined])
    expect(windows(read('smollm3', { ...slides, no_rope_layer_interval: 2 }))).toEqual([
      ...[undefined, 5],
      ...[undefined, 5],
      ...[undefined, 5],
    ])
    const listed = { ...slides, no_rope_layers: [1, 0, 1, 1, 1, 0] }
    expect(windows(read('smollm3', listed))).toEqual([undefined, 5, undefined, undefined, undefined, 5])
  })

  it('rotate by the config of the text model where that is a part of config.json', () => {
    const sizes = { hidden_size: 64, num_attention_heads: 4, num_hidden_layers: 6 }
    const text_config = { ...sizes, rope_theta: 5e5, _sliding_window_pattern: 3 }
    const config = { model_type: 'gemma3', text_config }
    const { spec } = architectures.gemma3(new ConfigReader(config, 'config.json'))
    const [local, , global] = layerRotaryEncodings(spec.positions!, 6, 256)
    expect(local!.at(1).inverseFrequencies[64]).toBeCloseTo(10_000 ** -0.5, 12)
    expect(global!.at(1).inverseFrequencies[64]).toBeCloseTo(5e5 ** -0.5, 12)
    expect(windows(spec as DecoderSpec)).toEqual([4096, 4096, undefined, 4096, 4096, undefined])
  })
})

const refused: readonly (readonly [ArchitectureName, Readonly<Record<string, unknown>>, string])[] = [
  ['llama', { sliding_window: 5 }, 'expected no value for "sliding_window", got 5'],
  ['llama', { rope_interleaved: true }, 'expected false for "rope_interleaved", got true'],
  ['llama', { num_experts: 8 }, 'expected only keys that are understood, got "num_experts"'],
  ['llama', { hidden_act: 'swish2' }, 'for "hidden_act", got "swish2"'],
  ['llama', { hidden_size: 65 }, '"head_dim"'],
  ['llama', { num_key_value_heads: 3 }, 'expected a divisor of 4 for "num_key_value_heads", got 3'],
  ['mistral', { num_key_value_heads: 4, sliding_window: 2.5 }, 'a positive integer for "sliding_window", got 2.5'],
  ['mistral', { num_key_value_heads: 4, sliding_window: 0 }, 'a number above 0 for "sliding_window", got 0'],
  ['mistral', { num_key_value_heads: 4, layer_types: [] }, 'got "layer_types"'],
  ['gemma2', { use_bidirectional_attention: true }, 'expected false for "use_bidirectional_attention", got true'],
  ['gemma2', { sliding_window: null, layer_types: new Array(6).fill(sliding) }, 'as layer 0 is sliding_attention'],
  ['gemma2', { layer_types: [full] }, 'expected a list of 6 items for "layer_types"'],
  ['gemma2', { layer_types: new Array(6).fill('chunked_attention') }, '"full_attention" for "layer_types"'],
  ['gemma3_text', { quantization_config: {} }, 'for "quantization_config"'],
  ['phi3', { lm_head_bias: true }, 'expected false for "lm_head_bias", got true'],
  ['smollm3', { no_rope_layers: [1, 2, 1, 1, 1, 1] }, 'expected a list of 0 and 1 for no_rope_layers, got'],
]

it.each(refused)('%s is refused with %j', (type, keys, message) => {
  expect(() => read(type, keys)).toThrow(message)
})
