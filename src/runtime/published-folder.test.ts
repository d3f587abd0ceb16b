import { rm, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { encodeModel } from '../onnx/index.ts'
import { writeSettings } from '../onnx/testing/checkpoint-files.ts'
import { createDecoder } from '../onnx/testing/published/styles.ts'
import { smallDecoder } from '../onnx/testing/published/writer.ts'
import type { LoadOptions } from './contract.ts'
import { loadModel } from './load-model.ts'
import { loadModel as loadInThread } from './open-model.ts'
import { cutLogits, deviation, temporaryFolders, tokensOf, uncutLogits, withModel } from './testing/published-folder.ts'

const writeFolder = temporaryFolders()

const prompt = 21
const tokens = tokensOf(prompt + 64)

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
    for (const [recommended, file] of [
      [{ model: 'q4', decoder_model_merged: 'fp32' }, 'model_q4.onnx'],
      ['auto', 'model.onnx'],
      ['fp16', 'model.onnx'], // which is not there
    ] as const) {
      await writeSettings(folder, { 'transformers.js_config': { dtype: recommended }, rope_theta: smallDecoder.theta })
      expect(await fileOf({})).toBe(file)
    }
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
    // The thread of the caller reads the folder too, for its texts.
    const there = await loadInThread(folder, { threads: 1 })
    expect((await there.generate('ab', { maxNewTokens: 2, ignoreEos: true })).tokens).toHaveLength(2)
    await there.dispose()
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

  it('is named where its file is cut off or its graph is not in order', async () => {
    const model = createDecoder(style)
    const { folder, file } = await writeFolder(model)
    const bytes = encodeModel(model)
    await writeFile(file, bytes.subarray(0, bytes.length / 2))
    await expect(loadModel(folder)).rejects.toThrow(`${file}: expected`)
    const graph = { ...model.graph!, node: model.graph!.node.toReversed() }
    await writeFile(file, encodeModel({ ...model, graph }))
    const error = loadModel(folder)
    await expect(error).rejects.toMatchObject({ code: 'invalid-file', area: 'onnx' })
    await expect(error).rejects.toThrow(`${file}: expected nodes in order`)
  })

  it('gives way to safetensors', async () => {
    const { folder } = await writeFolder(createDecoder(style))
    await writeFile(join(folder, 'model.safetensors'), 'not a checkpoint')
    await expect(loadModel(folder)).rejects.toThrow('model_type')
    await withModel(folder, { dtype: 'fp32' }, async (model) => expect(model.vocabSize).toBe(260))
  })
})
