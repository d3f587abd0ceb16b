import { readdirSync } from 'node:fs'
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { architectureNames } from './architectures/index.ts'
import { openCheckpoint } from './checkpoint.ts'
import { type DogeCheckpointOptions, type TestTensor, writeDogeCheckpoint } from './testing/doge-checkpoint.ts'

const folders: string[] = []
afterAll(() => Promise.all(folders.map((folder) => rm(folder, { recursive: true }))))

async function write(options: DogeCheckpointOptions = {}): Promise<string> {
  const { folder } = await writeDogeCheckpoint(options)
  folders.push(folder)
  return folder
}

async function open(options: DogeCheckpointOptions = {}) {
  return openCheckpoint(await write(options))
}

const config = (change: Record<string, unknown>): DogeCheckpointOptions => ({ config: change })
const tensors = (change: (all: Map<string, TestTensor>) => void): DogeCheckpointOptions => ({ change })
const layer = 'model.layers.1.self_attn'

it('every architecture file is in the table, under its name', () => {
  const files = readdirSync(new URL('architectures', import.meta.url)).map((name) => name.replace('.ts', ''))
  expect([...architectureNames].sort()).toEqual(files.filter((name) => !['contract', 'index'].includes(name)).sort())
})

describe('a Doge checkpoint', () => {
  it('gives the numbers of its config', async () => {
    const { spec } = await open({ heads: 4, kvHeads: 1, headDim: 20, window: 5 })
    expect(spec).toMatchObject({
      numLayers: 2,
      numHeads: 4,
      numKvHeads: 1,
      headDim: 20,
      window: 5,
      hasImportance: true,
    })
  })

  it('takes head_dim from hidden_size / heads, KV heads from heads, when they are null', async () => {
    const { spec } = await open({ heads: 4, kvHeads: 4, config: { head_dim: null, num_key_value_heads: null } })
    expect(spec).toMatchObject({ headDim: 8, numKvHeads: 4 })
  })

  it('points at every weight without reading it', async () => {
    const { model, weights } = await open()
    const used = model.graph!.initializer.filter(({ externalData }) => externalData.length > 0)
    expect(used.map(({ name }) => name).sort()).toEqual([...weights.keys()].sort())
    for (const { name, externalData } of used) {
      const offset = externalData.find(({ key }) => key === 'offset')!.value
      expect(offset).toBe(String(weights.get(name!)!.offset))
    }
  })

  it('uses the embedding as lm_head only when the file agrees that they are tied', async () => {
    const headOf = async (options: DogeCheckpointOptions) =>
      (await open(options)).model.graph!.node.filter(({ opType }) => opType === 'Gemm').at(-1)!.input[1]
    const copy = tensors((all) => all.set('lm_head.weight', all.get('model.embed_tokens.weight')!))
    const other = tensors((all) => {
      const { shape, values, dtype } = all.get('model.embed_tokens.weight')!
      all.set('lm_head.weight', { shape, dtype, values: values.map((value) => -value) })
    })
    expect(await headOf({})).toBe('model.embed_tokens.weight')
    expect(await headOf(copy)).toBe('model.embed_tokens.weight')
    expect(await headOf(other)).toBe('lm_head.weight')
    expect(await headOf({ tied: false })).toBe('lm_head.weight')
  })

  const refused: Record<string, [DogeCheckpointOptions, string]> = {
    'another architecture': [config({ model_type: 'dodge' }), '(did you mean "doge"?)'],
    'no architecture': [config({ model_type: undefined }), 'expected one of "doge", '],
    'a mixture of experts without its tensors': [
      config({ is_moe: true }),
      'mlp.router_gate.weight" of shape [256, 32]',
    ],
    'more experts a token than there are': [
      config({ is_moe: true, num_experts: 17, num_experts_per_tok: 18 }),
      'expected at most 16 for "num_experts_per_tok", got 18',
    ],
    'a sliding window': [config({ sliding_window: 128 }), 'expected no value for "sliding_window", got 128'],
    'another activation': [config({ hidden_act: 'gelu' }), 'expected "silu" for "hidden_act", got "gelu"'],
    'quantized weights': [config({ quantization_config: {} }), 'for "quantization_config"'],
    'a key of older code': [config({ dynamic_mask_ratio: 0 }), 'got "dynamic_mask_ratio"'],
    'heads that KV heads do not divide': [config({ num_key_value_heads: 3 }), 'expected a divisor of 4'],
    'a size that is no integer': [config({ hidden_size: 32.5 }), 'expected a positive integer for "hidden_size"'],
    'a head dim that is no integer': [
      config({ head_dim: null, num_attention_heads: 5, num_key_value_heads: 5 }),
      '"head_dim"',
    ],
    'a window of 0': [config({ keep_window_size: 0 }), 'expected a positive integer for "keep_window_size", got 0'],
    'a negative epsilon': [config({ rms_norm_eps: -1 }), 'expected a number above 0 for "rms_norm_eps"'],
    'a flag that is a number': [config({ attention_bias: 1 }), 'expected true or false for "attention_bias"'],
    'a checkpoint without q_norm': [
      tensors((all) => all.delete(`${layer}.q_norm.weight`)),
      `expected tensor "${layer}.q_norm.weight" of shape [8] in F32, F16 or BF16, found no such tensor`,
    ],
    'a missing bias': [
      tensors((all) => all.delete(`${layer}.dt_proj.bias`)),
      `expected tensor "${layer}.dt_proj.bias" of shape [2]`,
    ],
    'a missing lm_head': [
      config({ tie_word_embeddings: false }),
      'expected tensor "lm_head.weight" of shape [260, 32]',
    ],
    'a tensor of another shape': [
      tensors((all) => {
        all.get(`${layer}.A`)!.shape = [2, 1]
      }),
      `expected tensor "${layer}.A" of shape [2] in F32, F16 or BF16, found shape [2, 1] in F32`,
    ],
    'a size that the tensors do not have': [
      config({ intermediate_size: 47 }),
      'expected tensor "model.layers.0.mlp.gate_proj.weight" of shape [47, 32] in F32, F16 or BF16, found shape [48, 32]',
    ],
  }
  for (const [name, [options, message]] of Object.entries(refused)) {
    it(`is refused with ${name}`, async () => {
      await expect(open(options)).rejects.toThrow(message)
    })
  }

  it('is refused when config.json is missing or no JSON object', async () => {
    const folder = await write()
    await writeFile(join(folder, 'config.json'), '[]')
    await expect(openCheckpoint(folder)).rejects.toThrow('expected a JSON object, got an array of 0')
    await writeFile(join(folder, 'config.json'), '{')
    await expect(openCheckpoint(folder)).rejects.toThrow('expected JSON')
    await expect(openCheckpoint(join(folder, 'absent'))).rejects.toMatchObject({ code: 'not-found' })
  })
})
