import { open, rm, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { encodeModel, make, type OnnxModel, type OnnxTensor } from '../onnx/index.ts'
import { createDecoder, type StyleName } from '../onnx/testing/published/styles.ts'
import { loadModel } from './load-model.ts'
import { cutLogits, deviation, temporaryFolders, tokensOf, uncutLogits, withModel } from './testing/published-folder.ts'

const writeFolder = temporaryFolders()

const prompt = 21
const tokens = tokensOf(prompt + 64)

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
    ['q2', 'genai, three projections'],
    ['q2f16', 'genai, packed projection'],
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

  it('of one bit are refused where ONNX Runtime has no product for them', async () => {
    const { folder } = await writeFolder(
      createDecoder('genai, three projections', { weights: 'q1' }),
      'onnx/model_q1.onnx',
    )
    const error = loadModel(folder, { threads: 1, dtype: 'q1' })
    await expect(error).rejects.toMatchObject({ code: 'unsupported' })
    await expect(error).rejects.toThrow(/MatMulNBits.*Only 2b, 4b and 8b/)
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
