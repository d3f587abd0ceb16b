import { expect, test } from 'vitest'
import { KvasirError } from '../tensor/error.ts'
import { plan } from './plan-figures.ts'
import { toPlanShape } from './plan-shape.ts'
import { gemma2, llama } from './testing/configs.ts'

const qwen2 = {
  ...{ model_type: 'qwen2', num_hidden_layers: 28, num_attention_heads: 28, num_key_value_heads: 4 },
  ...{ hidden_size: 3584, sliding_window: 131072, use_sliding_window: false, max_window_layers: 28 },
}

const f16BytesPerToken: readonly (readonly [name: string, config: object, bytes: number])[] = [
  ['Llama-3.1-8B', llama, 128 * 1024],
  ['Llama-2-7B', { ...llama, num_key_value_heads: undefined }, 512 * 1024],
  ['Mistral-7B', { ...llama, model_type: 'mistral', sliding_window: 4096 }, 128 * 1024],
  ['Qwen2.5-7B', qwen2, 56 * 1024],
  ['Gemma-2-9B', gemma2, 336 * 1024],
  ['GPT-2', { model_type: 'gpt2', n_layer: 12, n_head: 12, n_embd: 768 }, 36 * 1024],
  [
    'Falcon-7B',
    { num_hidden_layers: 32, num_attention_heads: 71, hidden_size: 4544, multi_query: true, num_kv_heads: 71 },
    8 * 1024,
  ],
  ['a decoder inside a model that sees', { model_type: 'seeing', text_config: llama }, 128 * 1024],
]

test.each(f16BytesPerToken)('%s: bytes a token from its config.json', (_, config, bytes) => {
  const shape = toPlanShape(JSON.parse(JSON.stringify(config)), 'config.json')
  const request = { contextTokens: 1, kvDtype: 'f16', batch: 1, budgetBytes: 1 } as const
  expect(plan(shape, request).dtypes.find(({ dtype }) => dtype === 'f16')?.bytesPerToken).toBe(bytes)
})

test('which layers have windows of their own', () => {
  const windows = (config: object) => toPlanShape({ ...llama, num_hidden_layers: 6, ...config }, 'x').layerWindows
  const none = Array(6).fill(null)
  expect(windows({})).toEqual(none)
  expect(windows({ sliding_window: null })).toEqual(none)
  expect(windows({ sliding_window: 8 })).toEqual(Array(6).fill(8))
  expect(windows({ sliding_window: 8, use_sliding_window: false })).toEqual(none)
  expect(windows({ sliding_window: 8, max_window_layers: 4 })).toEqual(none)
  const later = { sliding_window: 8, use_sliding_window: true, max_window_layers: 4 }
  expect(windows(later)).toEqual([null, null, null, null, 8, 8])
  expect(windows({ sliding_window: 8, model_type: 'gemma2' })).toEqual([8, null, 8, null, 8, null])
  expect(windows({ sliding_window: 8, sliding_window_pattern: 3 })).toEqual([8, 8, null, 8, 8, null])
  const types = ['sliding_attention', 'full_attention', 'chunked_attention']
  const typed = { layer_types: [...types, ...types], sliding_window: 8, attention_chunk_size: 16 }
  expect(windows(typed)).toEqual([8, null, 16, 8, null, 16])
  const llama4 = { model_type: 'llama4_text', attention_chunk_size: 16 }
  expect(windows(llama4)).toEqual([16, 16, 16, null, 16, 16])
  expect(windows({ ...llama4, no_rope_layers: [1, 0, 1, 0, 1, 0] })).toEqual([16, null, 16, null, 16, null])
  expect(windows({ sliding_window: 8, model_type: 'gpt_oss' })).toEqual([8, null, 8, null, 8, null])
  expect(windows({ sliding_window: 8, model_type: 'olmo3' })).toEqual([8, 8, 8, null, 8, 8])
})

const broken: readonly (readonly [config: unknown, code: string, message: string])[] = [
  [[1], 'invalid-file', 'expected a JSON object, got an array of 1'],
  [{}, 'invalid-file', 'expected "num_hidden_layers" or "n_layer" or "num_layers", got undefined'],
  [{ ...llama, num_hidden_layers: 0 }, 'invalid-file', 'expected a positive integer for "num_hidden_layers", got 0'],
  [
    { ...llama, num_hidden_layers: 1e9 },
    'invalid-file',
    'expected at most 65536 for "num_hidden_layers", got 1000000000',
  ],
  [{ ...llama, full_attn_idxs: [2, 5] }, 'unsupported', 'got "full_attn_idxs" (layers without attention)'],
  [{ ...llama, block_types: ['recurrent'] }, 'unsupported', 'got "block_types" (layers without attention)'],
  [{ ...llama, num_attention_heads: 1e99 }, 'invalid-file', 'for "num_attention_heads", got 1e+99'],
  [{ ...llama, num_attention_heads: [32] }, 'invalid-file', 'for "num_attention_heads", got an array of 1'],
  [{ ...llama, num_key_value_heads: 5 }, 'invalid-file', 'expected a divisor of 32 for "num_key_value_heads", got 5'],
  [{ ...llama, hidden_size: 100 }, 'invalid-file', 'multiple of 32 heads, for "head_dim", got 100'],
  [{ ...llama, layer_types: ['full_attention'] }, 'invalid-file', 'expected an array of 32 for "layer_types"'],
  [
    { ...llama, layer_types: Array(32).fill('sliding_attention') },
    'invalid-file',
    'for "sliding_window", got undefined',
  ],
  [{ ...llama, layer_types: Array(32).fill('linear_attention') }, 'unsupported', 'got "linear_attention"'],
  [{ ...llama, layer_types: Array(32).fill('toString') }, 'unsupported', 'got "toString"'],
  [{ ...llama, sliding_window: 0 }, 'invalid-file', 'for "sliding_window", got 0'],
  [{ ...llama, kv_lora_rank: 512 }, 'unsupported', 'got "kv_lora_rank" (multi-head latent attention)'],
  [{ text_config: { ...llama, num_kv_shared_layers: 10 } }, 'unsupported', 'config.json (text_config): expected'],
  [{ ...llama, is_encoder_decoder: true }, 'unsupported', 'cross-attention'],
]

test.each(broken)('a config.json that cannot be counted is refused: %#', (config, code, message) => {
  let error: unknown
  try {
    toPlanShape(config, 'config.json')
  } catch (caught) {
    error = caught
  }
  expect(error).toBeInstanceOf(KvasirError)
  expect(error).toMatchObject({ code, message: expect.stringContaining(message) })
})
