import { mkdtemp, open, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { encodeModel, make, type OnnxModel, type OnnxTensor } from '../onnx/index.ts'
import { writeSettings } from '../onnx/testing/checkpoint-files.ts'
import { createDecoder, type StyleName, styleNames } from '../onnx/testing/published/styles.ts'
import { smallDecoder } from '../onnx/testing/published/writer.ts'
import type { LoadOptions } from './contract.ts'
import { loadModel } from './load-model.ts'
import {
  cutLogits,
  deviation,
  tokensOf,
  uncutLogits,
  withModel,
  writeFolder as writeIn,
} from './testing/published-folder.ts'

let root = ''
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'kvasir-published-'))
})
afterAll(() => rm(root, { recursive: true }))

const writeFolder = (model: OnnxModel, name?: string) => writeIn(root, model, name)

const prompt = 21
const tokens = tokensOf(prompt + 64)

describe('a published decoder, cut', () => {
  it.each(styleNames)('gives the logits of the uncut graph, token by token: %s', async (style) => {
    const { folder, file } = await writeFolder(createDecoder(style))
    const expected = await uncutLogits(file, tokens, prompt)
    const actual = await withModel(folder, {}, (model) => cutLogits(model, tokens, prompt))
    expect(deviation(actual, expected)).toBeLessThanOrEqual(1e-4)
  })

  it.each(styleNames)('reads many sequences at once as it reads each alone: %s', async (style) => {
    const { folder } = await writeFolder(createDecoder(style))
    await withModel(folder, { chunkSize: 16 }, async (model) => {
      const texts = [5, 1, 40, 17].map((length, i) => tokensOf(length, i))
      const alone: Float32Array[] = []
      for (const text of texts) alone.push((await cutLogits(model, text, text.length)).slice(-model.vocabSize))
      const entries = texts.map((text) => ({ cache: model.createCache(), tokens: text }))
      const { data } = await model.forward(entries)
      const together = data as Float32Array
      for (const [i, expected] of alone.entries()) {
        const row = together.subarray(i * model.vocabSize, (i + 1) * model.vocabSize)
        expect(deviation(row, expected)).toBeLessThanOrEqual(1e-5)
      }
      for (const { cache } of entries) cache.dispose()
    })
  })

  it('gives logits of chosen rows only', async () => {
    const { folder } = await writeFolder(createDecoder('Llama, written out'))
    await withModel(folder, {}, async (model) => {
      const all = await cutLogits(model, tokens, tokens.length)
      const cache = model.createCache()
      const { data } = await model.forward([{ cache, tokens, logitsOf: [3, 40, 84] }])
      const expected = [3, 40, 84].flatMap((row) => [...all.subarray(row * 260, (row + 1) * 260)])
      expect(deviation(data as Float32Array, Float32Array.from(expected))).toBeLessThanOrEqual(1e-5)
      cache.dispose()
    })
  })

  it('sees distances in a window as in the full cache: ALiBi', async () => {
    const { folder } = await writeFolder(createDecoder('ALiBi, written out'))
    await withModel(folder, { chunkSize: 8 }, async (model) => {
      const full = await cutLogits(model, tokens, prompt)
      const bounded = await cutLogits(model, tokens, prompt, { policy: 'window', window: 100 })
      expect(deviation(bounded, full)).toBeLessThanOrEqual(1e-5)
    })
  })

  it('reads shared keys and values from a bounded cache one token at a time, and says so', async () => {
    const { folder } = await writeFolder(createDecoder('shared keys and values'))
    const window = { policy: 'window', window: 100 } as const
    const full = await withModel(folder, {}, (model) => cutLogits(model, tokens, 1))
    await withModel(folder, { chunkSize: 1 }, async (model) => {
      expect(deviation(await cutLogits(model, tokens, prompt, window), full)).toBeLessThanOrEqual(1e-5)
    })
    await withModel(folder, {}, async (model) => {
      await expect(cutLogits(model, tokens, prompt, window)).rejects.toThrow('expected single tokens for shared keys')
    })
  })

  it('has constant memory with a window, and is the full cache while the window holds all', async () => {
    const { folder } = await writeFolder(createDecoder('genai, windows in odd layers, sinks, soft cap, scale'))
    await withModel(folder, {}, async (model) => {
      const full = await cutLogits(model, tokens, prompt)
      const bounded = await cutLogits(model, tokens, prompt, { policy: 'window', window: 100 })
      expect(deviation(bounded, full)).toBeLessThanOrEqual(1e-5)
      const cache = model.createCache({ policy: 'window', window: 16 })
      await model.prefill(cache, tokens)
      expect(cache.getCacheInfo()).toMatchObject({ keptTokens: 16, seenTokens: tokens.length })
      expect(cache.layer(1).info().keptTokens).toBe(9)
      cache.dispose()
    })
  })
})

describe('stored weights', () => {
  /** fp32 against which all are measured; each has the numbers of the same seed. */
  const reference = async (style: StyleName): Promise<Float32Array> =>
    uncutLogits((await writeFolder(createDecoder(style))).file, tokens, prompt)

  it.each([
    ['fp16', 'genai, packed projection'],
    ['fp16', 'Llama, written out'],
    ['q8', 'Llama, written out'],
    ['int8', 'Llama, written out'],
    ['uint8', 'genai, three projections'],
    ['q4', 'genai, norms and rotation before the node'],
    ['q4', 'Gemma 2, written out'],
    ['q4f16', 'genai, packed projection'],
    ['bnb4', 'genai, three projections'],
  ] as const)('deviate from f32 no more than twice what ONNX Runtime does: %s, %s', async (dtype, style) => {
    const suffix = dtype === 'q8' ? '_quantized' : `_${dtype}`
    const name = `onnx/model${suffix}.onnx`
    const { folder, file } = await writeFolder(createDecoder(style, { weights: dtype }), name)
    const expected = await reference(style)
    const own = deviation(await uncutLogits(file, tokens, prompt), expected)
    const actual = await withModel(folder, { dtype }, (model) => cutLogits(model, tokens, prompt))
    expect(own).toBeGreaterThan(1e-5)
    expect(deviation(actual, expected)).toBeLessThanOrEqual(2 * own)
  })

  it('lie in the .onnx file, in files beside it, or in both', async () => {
    const whole = createDecoder('genai, packed projection')
    const expected = await uncutLogits((await writeFolder(whole)).file, tokens, prompt)
    const { folder, file } = await writeFolder(whole)
    const outside = whole.graph!.initializer.filter((tensor, i) => i % 2 === 0 && tensor.rawData!.length > 1024)
    await writeFile(file, encodeModel(await movedOutside(whole, outside, file)))
    expect(deviation(await uncutLogits(file, tokens, prompt), expected)).toBe(0)
    await withModel(folder, {}, async (model) => {
      expect(deviation(await cutLogits(model, tokens, prompt), expected)).toBeLessThanOrEqual(1e-4)
    })
    await rm(`${file}_data_1`)
    await expect(loadModel(folder)).rejects.toMatchObject({ code: 'not-found' })
  })

  it('lie beyond 2 GiB and beyond 4 GiB', async () => {
    const whole = createDecoder('genai, packed projection')
    const expected = await uncutLogits((await writeFolder(whole)).file, tokens, prompt)
    const { folder, file } = await writeFolder(whole)
    const outside = whole.graph!.initializer.filter((tensor) => tensor.rawData!.length > 1024)
    // Holes in the files: nothing is stored there.
    await writeFile(file, encodeModel(await movedOutside(whole, outside, file, [2 ** 31 - 64, 2 ** 32 + 4096])))
    await withModel(folder, {}, async (model) => {
      expect(deviation(await cutLogits(model, tokens, prompt), expected)).toBeLessThanOrEqual(1e-4)
    })
    for (const suffix of ['', '_1']) await rm(`${file}_data${suffix}`)
  })

  it('are shared by the embeddings and the head, in four bits', async () => {
    const { folder, file } = await writeFolder(createDecoder('genai, tied embeddings in 4 bits', { weights: 'q4' }))
    const expected = await uncutLogits(file, tokens, prompt)
    await withModel(folder, {}, async (model) => {
      expect(deviation(await cutLogits(model, tokens, prompt), expected)).toBeLessThanOrEqual(1e-4)
    })
  })
})

describe('a folder of ONNX files', () => {
  const style = 'genai, three projections'

  it('is described by what was cut', async () => {
    const { folder, file } = await writeFolder(createDecoder(style, { weights: 'q4' }), 'onnx/model_q4.onnx')
    await withModel(folder, {}, async (model) => {
      const { attention, ...rest } = model.describe()
      expect(attention[1]).toEqual({
        ...{ layer: 1, node: '/model/layers.1/attn/GroupQueryAttention/output_0/node' },
        ...{ numHeads: 4, numKvHeads: 2, headDim: 16, rotation: 'default', was: 'GroupQueryAttention' },
      })
      // Embedding and head, and for each layer four projections of attention and three of the feed-forward part.
      const matrices = 2 * 260 * 64 + 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96)
      expect(rest).toMatchObject({ file, architecture: 'test', kvBytesPerToken: 2 * 2 * 2 * 16 * 4 })
      expect(rest.parameters).toBeGreaterThanOrEqual(matrices)
      expect(rest.parameters).toBeLessThan(matrices + 1000)
    })
  })

  it('has files of several dtypes, of which one is chosen', async () => {
    const { folder } = await writeFolder(createDecoder(style))
    await writeFile(join(folder, 'onnx/model_q4.onnx'), encodeModel(createDecoder(style, { weights: 'q4' })))
    const fileOf = (options: LoadOptions) =>
      withModel(folder, options, async (model) => basename(model.describe().file!))
    expect(await fileOf({})).toBe('model.onnx')
    expect(await fileOf({ dtype: 'q4' })).toBe('model_q4.onnx')
    await writeSettings(folder, { 'transformers.js_config': { dtype: 'q4' }, rope_theta: smallDecoder.theta })
    expect(await fileOf({})).toBe('model_q4.onnx')
    await expect(loadModel(folder, { dtype: 'fp16' })).rejects.toThrow('a decoder of dtype "fp16"')
    await expect(loadModel(folder, { dtype: 'q5' as never })).rejects.toThrow('did you mean')
    await expect(loadModel(folder, { quantize: 'int8' })).rejects.toThrow('choose one of its files by dtype')
  })

  it('may be the folder itself, without config.json', async () => {
    const { folder, file } = await writeFolder(createDecoder('genai, packed projection'), 'model.onnx')
    await rm(join(folder, 'config.json'))
    const expected = await uncutLogits(file, tokens, prompt)
    await withModel(folder, {}, async (model) => {
      expect(deviation(await cutLogits(model, tokens, prompt), expected)).toBeLessThanOrEqual(1e-4)
    })
  })

  it('goes on beyond its tables where config.json has frequencies that agree, and only there', async () => {
    const { folder } = await writeFolder(createDecoder(style))
    const long = tokensOf(smallDecoder.maxPositions + 1)
    const read = (): Promise<void> =>
      withModel(folder, {}, async (model) => {
        const cache = model.createCache()
        await model.prefill(cache, long.slice(0, -1))
        await model.prefill(cache, long.slice(-1))
        cache.dispose()
      })
    await read()
    await writeSettings(folder, { rope_theta: 500 })
    await expect(read()).rejects.toThrow('expected positions below 256, got position 256')
  })

  it('gives way to safetensors', async () => {
    const { folder } = await writeFolder(createDecoder(style))
    await writeFile(join(folder, 'model.safetensors'), 'not a checkpoint')
    await expect(loadModel(folder)).rejects.toThrow('model_type')
    await withModel(folder, { dtype: 'fp32' }, async (model) => expect(model.vocabSize).toBe(260))
  })
})

/** Puts tensors in turns into `model.onnx_data` and `model.onnx_data_1`, the first of each at a given byte. */
async function movedOutside(
  model: OnnxModel,
  tensors: readonly OnnxTensor[],
  file: string,
  starts: readonly [number, number] = [0, 0],
): Promise<OnnxModel> {
  const ends = [...starts]
  const moved = new Map<OnnxTensor, OnnxTensor>()
  for (const part of [0, 1]) {
    const location = `${basename(file)}_data${part ? '_1' : ''}`
    const handle = await open(join(dirname(file), location), 'w')
    for (const tensor of tensors.filter((_, i) => i % 2 === part)) {
      const { length } = tensor.rawData!
      const places = { location, offset: String(ends[part]), length: String(length) }
      const externalData = Object.entries(places).map(([key, value]) => make('StringEntry', { key, value }))
      moved.set(tensor, { ...tensor, rawData: undefined, dataLocation: 1, externalData })
      await handle.write(tensor.rawData!, 0, length, ends[part])
      ends[part]! += length
    }
    await handle.close()
  }
  const initializer = model.graph!.initializer.map((tensor) => moved.get(tensor) ?? tensor)
  return { ...model, graph: { ...model.graph!, initializer } }
}
