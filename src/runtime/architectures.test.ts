/** Every architecture against an f64 forward pass written after its definition in transformers. */
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import type { TestTensor } from '../onnx/testing/checkpoint-files.ts'
import {
  type DecoderCheckpointOptions,
  type DecoderType,
  writeDecoderCheckpoint,
} from '../onnx/testing/decoder-checkpoint.ts'
import { decoderLogits } from '../onnx/testing/decoder-reference.ts'
import { writeDogeCheckpoint } from '../onnx/testing/doge-checkpoint.ts'
import { dogeLogits } from '../onnx/testing/doge-reference.ts'
import type { CausalLM } from './contract.ts'
import { loadModel } from './load-model.ts'

const folders: string[] = []
const models: CausalLM[] = []
afterAll(async () => {
  for (const model of models) await model.dispose()
  for (const folder of folders) await rm(folder, { recursive: true })
})

const text = Array.from({ length: 28 }, (_, i) => (i * 89 + 7) % 256)
const promptLength = 20

/** Reads a prompt at once, in chunks when it is longer than those, then one token at a time; `[T][vocab]`. */
async function logitsOf(folder: string, chunkSize = 512): Promise<Float32Array> {
  const model = await loadModel(folder, { threads: 1, chunkSize })
  models.push(model)
  const cache = model.createCache()
  const prompt = text.slice(0, promptLength)
  const steps = [prompt, ...text.slice(promptLength).map((token) => [token])]
  const rows: number[] = []
  for (const tokens of steps) {
    const { data } = await model.forward([{ cache, tokens, logitsOf: tokens.map((_, i) => i) }])
    rows.push(...(data as Float32Array))
  }
  return Float32Array.from(rows)
}

/** Largest difference over the range of the expected logits; NaN counts as infinitely wrong. */
function relativeError(logits: Float32Array, expected: readonly number[]): number {
  expect(logits.length).toBe(expected.length)
  const range = Math.max(...expected) - Math.min(...expected)
  const worst = Math.max(...expected.map((value, i) => Math.abs(logits[i]! - value)))
  return Number.isNaN(worst) ? Number.POSITIVE_INFINITY : worst / range
}

async function errorOf(type: DecoderType, options: DecoderCheckpointOptions = {}, chunkSize = 512): Promise<number> {
  const checkpoint = await writeDecoderCheckpoint(type, options)
  folders.push(checkpoint.folder)
  return relativeError(await logitsOf(checkpoint.folder, chunkSize), decoderLogits(checkpoint, text).flat())
}

type Case = readonly [DecoderType, string, DecoderCheckpointOptions?]
const config = (keys: Readonly<Record<string, unknown>>): DecoderCheckpointOptions => ({ config: keys })
const [full, sliding] = ['full_attention', 'sliding_attention']

const cases: readonly Case[] = [
  ['llama', 'plain'],
  ['llama', 'biases everywhere', config({ attention_bias: true, mlp_bias: true })],
  ['llama', 'tied embeddings', config({ tie_word_embeddings: true })],
  ['llama', 'as many KV heads as heads', config({ num_key_value_heads: 4 })],
  ['llama', 'three bf16 shards', { dtype: 'BF16', shards: 3 }],
  ['mistral', 'a window'],
  ['mistral', 'no window', config({ sliding_window: null })],
  ['qwen2', 'windows in the upper layers'],
  ['qwen2', 'windows by layer_types', config({ layer_types: [sliding, full, full, sliding] })],
  ['qwen2', 'windows switched off', config({ use_sliding_window: false })],
  ['qwen3', 'plain'],
  ['qwen3', 'windows', config({ use_sliding_window: true, sliding_window: 4, max_window_layers: 0 })],
  ['gemma2', 'plain'],
  ['gemma2', 'no soft caps', config({ attn_logit_softcapping: null, final_logit_softcapping: null })],
  ['gemma2', 'f16 weights', { dtype: 'F16' }],
  ['gemma3_text', 'plain'],
  ['gemma3_text', 'soft caps', config({ attn_logit_softcapping: 2, final_logit_softcapping: 3 })],
  ['phi3', 'plain'],
  ['phi3', 'no window, tied', config({ sliding_window: null, tie_word_embeddings: true })],
  ['phi3', 'two f16 shards', { dtype: 'F16', shards: 2 }],
  ['smollm3', 'plain'],
  ['smollm3', 'listed layers without positions', config({ no_rope_layers: [0, 1, 1, 0] })],
]

describe('logits of prompt and decoding equal the f64 reference', () => {
  for (const [type, what, options] of cases) {
    it(`${type}: ${what}`, async () => {
      expect(await errorOf(type, options)).toBeLessThan(1e-5)
    })
  }

  const prefixes: Readonly<Record<string, (name: string) => string>> = {
    old: (name) => `language_model.${name}`,
    new: (name) => name.replace(/^model\./, 'model.language_model.'),
  }
  it.each(Object.entries(prefixes))('gemma3: the text model under its %s names', async (_, rename) => {
    const text = { ...(await writeDecoderCheckpoint('gemma3_text')) }
    const change = (tensors: Map<string, TestTensor>): void => {
      const all = [...tensors]
      tensors.clear()
      for (const [name, tensor] of all) tensors.set(rename(name), tensor)
      tensors.set('vision_tower.weight', { shape: [1], values: Float32Array.of(1), dtype: 'F32' })
    }
    const checkpoint = await writeDecoderCheckpoint('gemma3_text', { change })
    folders.push(text.folder, checkpoint.folder)
    const outer = { model_type: 'gemma3', text_config: text.config, vision_config: {}, mm_tokens_per_image: 256 }
    await writeFile(join(checkpoint.folder, 'config.json'), JSON.stringify(outer))
    expect(await logitsOf(checkpoint.folder)).toEqual(await logitsOf(text.folder))
  })

  it('in chunks shorter and longer than the windows', async () => {
    for (const chunkSize of [3, 8]) expect(await errorOf('gemma3_text', {}, chunkSize)).toBeLessThan(1e-5)
  })

  const experts: Readonly<Record<string, Parameters<typeof writeDogeCheckpoint>[0]>> = {
    'a square number of experts': { experts: 16, expertsPerToken: 3 },
    'more experts a token than keys': { experts: 16, expertsPerToken: 9 },
    'experts that no key pair reaches': { experts: 12, expertsPerToken: 4, tied: false },
    'tables of bf16': { experts: 25, expertsPerToken: 5, dtype: 'BF16' },
  }
  it.each(Object.entries(experts))('doge: %s', async (_, options) => {
    const checkpoint = await writeDogeCheckpoint({ ...options, window: 64 })
    folders.push(checkpoint.folder)
    const expected = dogeLogits(checkpoint, text).flat()
    expect(relativeError(await logitsOf(checkpoint.folder), expected)).toBeLessThan(1e-5)
  })
})
