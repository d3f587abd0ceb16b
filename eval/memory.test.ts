import { expect, test } from 'vitest'
import { createFakeModel } from '../test/fake-model.ts'
import { createDocument, streamDocument } from './document.ts'
import { evalMemory, sampleMarks } from './memory.ts'
import { plotMemory } from './plot.ts'

test('samples are taken at 1,024 tokens and then evenly to the end', () => {
  expect(sampleMarks(10_000, 5)).toEqual([1024, 2500, 5000, 7500, 10_000])
  expect(sampleMarks(1024, 2)).toEqual([1024])
  expect(sampleMarks(3000, 4)).toEqual([1024, 2000, 3000])
})

test('a bounded cache has the same size in all samples', async () => {
  const model = createFakeModel(() => '', { policy: 'linear', window: 256 })
  const result = await evalMemory(model, { tokens: 20_000, seed: 1, samples: 5 })
  expect(result).toMatchObject({ policy: 'linear', window: 256, isKvConstant: true })
  expect(result.samples).toHaveLength(5)
  expect(result.samples.at(-1)?.tokens).toBe(result.tokens)
  expect(result.samples[0]?.kvBytes).toBe(result.samples.at(-1)?.kvBytes)
})

test('a cache that grows is found out', async () => {
  const result = await evalMemory(
    createFakeModel(() => '', { policy: 'full' }),
    { tokens: 5000, seed: 1, samples: 4 },
  )
  expect(result.isKvConstant).toBe(false)
})

test('growth of the process counts from a tenth of the way, by medians of both halves', async () => {
  const rss = [100, 500, 510, 520, 530]
  const model = createFakeModel(() => '', { window: 8 })
  const options = { tokens: 40_000, seed: 1, samples: 5, measureRss: () => rss.shift() ?? 0 }
  expect((await evalMemory(model, options)).rssGrowthBytes).toBe(20)
})

test('a streamed document is the document', () => {
  const { tokenizer } = createFakeModel(() => '')
  const options = { seed: 9, tokens: 3000, facts: 6 }
  const pieces = [...streamDocument(tokenizer, options, 500)]
  expect(pieces.length).toBeGreaterThan(3)
  expect(pieces.flat()).toEqual([...createDocument(tokenizer, options).tokens])
})

test('the picture names its lines', async () => {
  const model = createFakeModel(() => '', { policy: 'linear', window: 256 })
  const svg = await plotMemory(await evalMemory(model, { tokens: 5000, seed: 1, samples: 4 }))
  expect(svg).toMatch(/^<svg /)
  for (const label of ['linear, window 256', 'KV cache of all tokens', 'process (RSS)', 'tokens read']) {
    expect(svg).toContain(label)
  }
})
