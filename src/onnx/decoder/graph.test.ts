/** What a decoder's graph takes from a checkpoint, and how a checkpoint that does not fit is refused. */
import { rm } from 'node:fs/promises'
import { afterAll, expect, it } from 'vitest'
import { openCheckpoint } from '../checkpoint.ts'
import type { TestTensor } from '../testing/checkpoint-files.ts'
import {
  type DecoderCheckpointOptions,
  type DecoderType,
  writeDecoderCheckpoint,
} from '../testing/decoder-checkpoint.ts'

const folders: string[] = []
afterAll(() => Promise.all(folders.map((folder) => rm(folder, { recursive: true }))))

async function open(type: DecoderType, options: DecoderCheckpointOptions = {}) {
  const { folder } = await writeDecoderCheckpoint(type, options)
  folders.push(folder)
  return openCheckpoint(folder)
}

it('fused projections are used by ranges of their rows, in the bytes of the file', async () => {
  const { model, weights } = await open('phi3', { dtype: 'BF16', shards: 2 })
  const place = (name: string) => {
    const { externalData = [] } = model.graph!.initializer.find((tensor) => tensor.name === name) ?? {}
    const entries = new Map(externalData.map(({ key, value }) => [key, value]))
    return { offset: Number(entries.get('offset')), length: Number(entries.get('length')) }
  }
  const prefix = 'model.layers.2'
  const fused = weights.get(`${prefix}.self_attn.qkv_proj.weight`)!
  const row = 48 * 2 // hidden size of bf16
  const [queries, keys] = [4 * 32, 2 * 32]
  const rows = [
    ['q', 0, queries],
    ['k', queries, keys],
    ['v', queries + keys, keys],
  ] as const
  for (const [name, from, count] of rows) {
    const expected = { offset: fused.offset + from * row, length: count * row }
    expect(place(`${prefix}.self_attn.${name}_proj.weight`), name).toEqual(expected)
  }
  const gates = weights.get(`${prefix}.mlp.gate_up_proj.weight`)!
  expect(place(`${prefix}.mlp.up_proj.weight`)).toEqual({ offset: gates.offset + 80 * row, length: 80 * row })
})

const broken = (change: (tensors: Map<string, TestTensor>) => void): DecoderCheckpointOptions => ({ change })

const refused: readonly (readonly [string, DecoderType, DecoderCheckpointOptions, string])[] = [
  [
    'a fused projection of other heads',
    'phi3',
    { config: { num_key_value_heads: 4 }, change: (tensors) => shrink(tensors, 'model.layers.0.self_attn.qkv_proj') },
    'expected tensor "model.layers.0.self_attn.qkv_proj.weight" of shape [384, 48]',
  ],
  [
    'no fused projection',
    'phi3',
    broken((tensors) => tensors.delete('model.layers.1.mlp.gate_up_proj.weight')),
    'expected tensor "model.layers.1.mlp.gate_up_proj.weight" of shape [160, 48] in F32, F16 or BF16, found no such',
  ],
  [
    'a missing bias',
    'qwen2',
    broken((tensors) => tensors.delete('model.layers.0.self_attn.k_proj.bias')),
    'expected tensor "model.layers.0.self_attn.k_proj.bias" of shape [32]',
  ],
  [
    'a missing norm',
    'gemma2',
    broken((tensors) => tensors.delete('model.layers.3.pre_feedforward_layernorm.weight')),
    'expected tensor "model.layers.3.pre_feedforward_layernorm.weight" of shape [48]',
  ],
  ['fewer layers than config.json says', 'llama', { change: dropLayer }, 'expected tensor "model.layers.3.'],
]

it.each(refused)('a checkpoint is refused with %s', async (_, type, options, message) => {
  await expect(open(type, options)).rejects.toThrow(message)
})

function shrink(tensors: Map<string, TestTensor>, name: string): void {
  const tensor = tensors.get(`${name}.weight`)!
  tensor.shape = [tensor.shape[0]! - 1, tensor.shape[1]!]
  tensor.values = tensor.values.slice(tensor.shape[1]!)
}

function dropLayer(tensors: Map<string, TestTensor>): void {
  for (const name of [...tensors.keys()]) if (name.startsWith('model.layers.3.')) tensors.delete(name)
}
