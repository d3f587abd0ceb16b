/** Exported folders, run by onnxruntime-node alone: beside our own runtime and the f64 references. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { InferenceSession, Tensor } from 'onnxruntime-node'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { decodeModel, openCheckpoint } from '../onnx/index.ts'
import {
  type DecoderCheckpoint,
  type DecoderCheckpointOptions,
  type DecoderType,
  decoderTypes,
} from '../onnx/testing/decoder-checkpoint.ts'
import { decoderLogits } from '../onnx/testing/decoder-reference.ts'
import type { LoadOptions } from './contract.ts'
import { loadModel } from './load-model.ts'
import { exportFolders } from './testing/exported-folder.ts'

const made = exportFolders()
const { write, exported } = made
beforeAll(() => {
  vi.stubEnv('KVASIR_CACHE', join(made.root, 'cache'))
})
afterAll(() => {
  vi.unstubAllEnvs()
})

const text = Array.from({ length: 90 }, (_, i) => (i * 89 + 7) % 256)
/** Phi-3.5: other frequencies for sequences longer than the original context. */
const longRope = (original: number): DecoderCheckpointOptions => ({
  config: {
    original_max_position_embeddings: original,
    rope_scaling: {
      type: 'longrope',
      short_factor: Array.from({ length: 8 }, (_, i) => 1 + i / 10),
      long_factor: Array.from({ length: 8 }, (_, i) => 1.5 + i),
    },
  },
})
const promptLength = text.length - 64

/** Runs a written folder as any user of onnxruntime would: a prompt of several rows, then token by token. */
async function stockLogits(file: string, { config }: DecoderCheckpoint, rows: readonly (readonly number[])[] = [text]) {
  const session = await InferenceSession.create(file, { logSeverityLevel: 3 })
  const type = session.inputMetadata.find(({ name }) => name.startsWith('past'))! as { type: 'float32' | 'float16' }
  const batch = rows.length
  const dims = [batch, config.num_key_value_heads, 0, config.head_dim]
  const empty = () => new Tensor(type.type, type.type === 'float16' ? new Uint16Array(0) : new Float32Array(0), dims)
  let past: Record<string, Tensor> = Object.fromEntries(session.inputNames.slice(2).map((name) => [name, empty()]))
  const result: number[] = []
  for (let done = 0; done < rows[0]!.length; ) {
    const next = done === 0 ? promptLength : 1
    const tokens = rows.flatMap((row) => row.slice(done, done + next))
    done += next
    const outputs = await session.run({
      input_ids: integers(tokens, [batch, next]),
      attention_mask: integers(new Array(batch * done).fill(1), [batch, done]),
      ...past,
    })
    past = Object.fromEntries(
      Object.keys(past).map((name) => [name, outputs[name.replace('past_key_values', 'present')]!]),
    )
    result.push(...(outputs.logits!.data as Float32Array))
  }
  await session.release()
  return result
}

const integers = (values: readonly number[], dims: readonly number[]): Tensor =>
  new Tensor('int64', BigInt64Array.from(values, BigInt), dims)

async function ownLogits({ folder }: { folder: string }, options: LoadOptions = {}): Promise<number[]> {
  const model = await loadModel(folder, { threads: 1, ...options })
  const cache = model.createCache()
  const result: number[] = []
  for (const tokens of [text.slice(0, promptLength), ...text.slice(promptLength).map((token) => [token])]) {
    result.push(...((await model.forward([{ cache, tokens, logitsOf: tokens.map((_, i) => i) }])).data as Float32Array))
  }
  await model.dispose()
  return result
}

/** Largest difference over the range of the expected logits; NaN counts as infinitely wrong. */
function relativeError(logits: readonly number[], expected: readonly number[]): number {
  expect(logits.length).toBe(expected.length)
  const range = Math.max(...expected) - Math.min(...expected)
  const worst = Math.max(...expected.map((value, i) => Math.abs(logits[i]! - value)))
  return Number.isNaN(worst) ? Number.POSITIVE_INFINITY : worst / range
}

describe('an exported model in stock onnxruntime', () => {
  it.each(decoderTypes)('%s equals the f64 reference and our own runtime', async (type) => {
    const checkpoint = await write(type)
    const { files, folder } = await exported(checkpoint)
    expect(files[0]!.path).toBe('onnx/model.onnx')
    const logits = await stockLogits(join(folder, files[0]!.path), checkpoint)
    expect(relativeError(logits, decoderLogits(checkpoint, text).flat())).toBeLessThan(1e-5)
    expect(relativeError(await ownLogits(checkpoint), logits)).toBeLessThan(1e-5)
  })

  const variants: readonly (readonly [string, DecoderType, DecoderCheckpointOptions])[] = [
    ['biases', 'llama', { config: { attention_bias: true, mlp_bias: true } }],
    ['f16 shards and tied embeddings', 'phi3', { dtype: 'F16', shards: 2, config: { tie_word_embeddings: true } }],
    ['bf16 weights', 'gemma3_text', { dtype: 'BF16' }],
    ['no soft caps', 'gemma2', { config: { attn_logit_softcapping: null, final_logit_softcapping: null } }],
  ]
  it.each(variants)('with %s', async (_, type, options) => {
    const checkpoint = await write(type, options)
    const { files, folder } = await exported(checkpoint)
    const logits = await stockLogits(join(folder, files[0]!.path), checkpoint)
    expect(relativeError(logits, decoderLogits(checkpoint, text).flat())).toBeLessThan(1e-5)
  })

  it.each(decoderTypes)('%s in f16 is as exact as f16 is', async (type) => {
    const checkpoint = await write(type)
    const { files, folder } = await exported(checkpoint, { dtype: 'f16' })
    expect(files[0]!.path).toBe('onnx/model_fp16.onnx')
    const logits = await stockLogits(join(folder, files[0]!.path), checkpoint)
    const error = relativeError(logits, decoderLogits(checkpoint, text).flat())
    expect(error).toBeLessThan(5e-3)
    expect(error).toBeGreaterThan(1e-6) // it would be f32
  })

  it.each(decoderTypes)('%s with quantized weights is the same model as quantized at load', async (type) => {
    const checkpoint = await write(type, { dtype: 'BF16', shards: 2 })
    const exact = decoderLogits(checkpoint, text).flat()
    for (const [dtype, name, tolerance] of [
      ['int8', 'model_int8.onnx', 0.05],
      ['int4', 'model_q4.onnx', 0.4],
    ] as const) {
      const { files, folder } = await exported(checkpoint, { dtype })
      expect(files[0]!.path).toBe(`onnx/${name}`)
      const logits = await stockLogits(join(folder, files[0]!.path), checkpoint)
      const own = await ownLogits(checkpoint, { quantize: dtype })
      expect(relativeError(own, logits)).toBeLessThan(2e-2)
      expect(relativeError(logits, exact)).toBeLessThan(tolerance)
      expect(relativeError(logits, exact)).toBeGreaterThan(1e-3) // it would not be quantized
    }
  })

  const borders: Readonly<Record<string, number>> = { 'while decoding': 40, 'in the prompt': 16, never: 250 }
  it.each(Object.entries(borders))('changes to the long rotations of LongRoPE %s', async (_, original) => {
    const checkpoint = await write('phi3', longRope(original))
    const { files, folder } = await exported(checkpoint)
    const logits = await stockLogits(join(folder, files[0]!.path), checkpoint)
    expect(relativeError(await ownLogits(checkpoint), logits)).toBeLessThan(1e-5)
    const plain = await write('phi3')
    expect(relativeError(await ownLogits(plain), logits)).toBeGreaterThan(1e-3)
  })

  it('changes rotations for several rows at once', async () => {
    const checkpoint = await write('phi3', longRope(40))
    const other = text.map((token) => (token * 3 + 1) % 256)
    const { files, folder } = await exported(checkpoint)
    const file = join(folder, files[0]!.path)
    const both = await stockLogits(file, checkpoint, [text, other])
    const single = [...(await stockLogits(file, checkpoint)).slice(-260)]
    expect(relativeError(both.slice(-2 * 260, -260), single)).toBeLessThan(1e-5)
  })

  it.each(['f16', 'int8', 'int4'] as const)('is loaded back in %s', async (dtype) => {
    const checkpoint = await write('gemma3_text')
    const { folder, files } = await exported(checkpoint, { dtype })
    const logits = await stockLogits(join(folder, files[0]!.path), checkpoint)
    expect(relativeError(await ownLogits({ folder }), logits)).toBeLessThan(dtype === 'f16' ? 5e-3 : 2e-2)
  })

  it('takes several rows at once', async () => {
    const checkpoint = await write('gemma3_text')
    const other = text.map((token) => (token * 3 + 1) % 256)
    const { files, folder } = await exported(checkpoint)
    const both = await stockLogits(join(folder, files[0]!.path), checkpoint, [text, other])
    const lastOf = (row: readonly number[]) => decoderLogits(checkpoint, row).at(-1)!
    expect(relativeError(both.slice(-2 * 260), [...lastOf(text), ...lastOf(other)])).toBeLessThan(1e-5)
  })

  it('reads weights from files beside the graph, each tensor once', async () => {
    const checkpoint = await write('qwen2', { config: { tie_word_embeddings: true } })
    const inside = await exported(checkpoint)
    const beside = await exported(checkpoint, { maxInlineBytes: 0, maxFileBytes: 50_000 })
    const names = beside.files.map(({ path }) => path).filter((path) => path.startsWith('onnx/'))
    expect(names.slice(0, 3)).toEqual(['onnx/model.onnx', 'onnx/model.onnx_data', 'onnx/model.onnx_data_1'])
    const { weights } = await openCheckpoint(checkpoint.folder)
    const tensors = [...weights.values()].reduce((sum, { byteLength }) => sum + byteLength, 0)
    const rotary = 2 * 256 * 8 * 4
    const data = beside.files.filter(({ path }) => path.includes('_data')).reduce((sum, { bytes }) => sum + bytes, 0)
    expect(data).toBeGreaterThan(0.98 * (tensors + rotary))
    expect(data).toBeLessThan(1.02 * (tensors + rotary))
    expect(beside.files[0]!.bytes).toBeLessThan(50_000)
    const { graph } = decodeModel(await readFile(join(beside.folder, 'onnx/model.onnx')))
    const places = graph!.initializer.flatMap(({ externalData }) => externalData)
    const offsets = places.filter(({ key }) => key === 'offset').map(({ value }) => Number(value))
    expect(offsets.length).toBeGreaterThan(20)
    expect(offsets.filter((offset) => offset % 64 !== 0)).toEqual([])
    const [a, b] = [inside, beside].map(({ folder }) => stockLogits(join(folder, 'onnx/model.onnx'), checkpoint))
    expect(await a).toEqual(await b)
    const config = JSON.parse(await readFile(join(beside.folder, 'config.json'), 'utf8'))
    expect(config).toMatchObject({
      model_type: 'qwen2',
      'transformers.js_config': { dtype: 'fp32', use_external_data_format: names.length - 1 },
    })
  })
})
