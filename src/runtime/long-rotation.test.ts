import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { plainDecoder } from '../onnx/testing/published/scaffold.ts'
import { createCustom } from '../onnx/testing/published/styles.ts'
import { llamaAttention } from '../onnx/testing/published/written.ts'
import { loadModel } from './load-model.ts'
import {
  batchDeviation,
  cutLogits,
  deviation,
  temporaryFolders,
  tokensOf,
  uncutLogits,
  withModel,
} from './testing/published-folder.ts'

const writeFolder = temporaryFolders()
beforeAll(() => {
  vi.spyOn(process, 'emitWarning').mockImplementation(() => undefined)
})
afterAll(() => {
  vi.restoreAllMocks()
})

const tokens = tokensOf(85)

const written = (long: { length: number; factor: number; by?: 'mask' }) =>
  writeFolder(createCustom((w) => plainDecoder(w, llamaAttention(w, { kind: 'eager', long }))))

describe('LongRoPE that is written out, chosen by a Where', () => {
  it.each([
    ['the largest position', {}],
    ['the length of the mask', { by: 'mask' }],
  ] as const)('gives the logits of the uncut graph, in chunks of any length: %s', async (_, by) => {
    const { folder, file } = await written({ length: 30, factor: 3, ...by })
    for (const prompt of [21, 60]) {
      const expected = await uncutLogits(file, tokens, prompt)
      for (const chunkSize of [64, 16]) {
        await withModel(folder, { chunkSize }, async (model) => {
          expect(deviation(await cutLogits(model, tokens, prompt), expected)).toBeLessThanOrEqual(1e-4)
          expect(model.describe().warnings).toEqual([
            'the choice of its rotation, which goes by the length of the text',
          ])
        })
      }
    }
    const plain = await uncutLogits((await written({ length: 30, factor: 1 })).file, tokens, 60)
    expect(deviation(await uncutLogits(file, tokens, 60), plain)).toBeGreaterThan(1e-2)
  })

  it('goes by each text in a batch', async () => {
    const { folder } = await written({ length: 30, factor: 3 })
    await withModel(folder, { chunkSize: 16 }, async (model) => {
      expect(await batchDeviation(model, [50, 9, 31])).toBeLessThanOrEqual(1e-5)
    })
  })

  it('is not shared between prompts: the same beginning is rotated otherwise in a longer text', async () => {
    const { folder } = await written({ length: 30, factor: 3 })
    const model = await loadModel(folder, { threads: 1, prefixCache: { blockTokens: 16 } })
    const read = async (length: number, prefixCache?: false) => {
      const given = prefixCache === false ? { prefixCache } : {}
      return await model.generate(tokens.slice(0, length), { maxNewTokens: 1, logprobs: 2, ...given })
    }
    await read(20)
    const [shared, own] = [await read(60), await read(60, false)]
    expect(shared.reusedTokens).toBe(0)
    expect(shared.logprobs).toEqual(own.logprobs)
    await model.dispose()
  })
})
