import { expect, test } from 'vitest'
import { renderResults, replaceBetweenMarks } from './render-results.mjs'

const recall = { policy: 'linear', window: 256, contextTokens: 65_536, questions: 100, correct: 99, recall: 0.99 }
const sample = { tokens: 1026, kvBytes: 1_056_784, fullKvBytes: 4_200_000, rssBytes: 200 * 2 ** 20 }
const row = { tokens: 1024, fullBytes: 2 ** 25, linearBytes: 2 ** 26, denseMs: 1, fullMs: 2, linearMs: 0.5, speedup: 4 }
const results = {
  machine: { processor: 'a processor', cores: 2, memoryGiB: 24, node: 'v20.20.2' },
  recall: [{ command: 'kvasir eval recall', result: { ...recall, kvBytes: 2 ** 20, fullKvBytes: 258 * 2 ** 20 } }],
  memory: [{ command: 'kvasir eval memory', result: { samples: [sample, sample], rssGrowthBytes: -(2 ** 20) } }],
  decode: [
    {
      command: 'kvasir bench decode',
      result: {
        rows: [
          { dtype: 'f16', heads: 32, kvHeads: 8, kvLength: 32_768, ms: 5, gbPerSecond: 27, shareOfLimit: 0.95 },
        ].map((cells) => ({ ...cells, onnxruntimeMs: 200, ratioToOnnxruntime: 40 })),
      },
    },
  ],
  linear: [
    {
      command: 'kvasir bench linear',
      result: {
        window: 2048,
        heads: 32,
        headDim: 128,
        dtype: 'f32',
        rows: [row],
        flatness: { ratio: 1.01, window: 2048 },
      },
    },
  ],
}

test('figures become tables, each with its command', () => {
  const text = renderResults(results)
  expect(text).toContain('on a processor, 2 cores, 24 GiB, Node v20.20.2')
  expect(text).toContain('| linear | 256 | 65,536 | 99 of 100 | 0.990 | 1.00 MiB | 258 MiB |')
  expect(text).toContain('after 1,026: 1,056,784 bytes')
  expect(text).toContain('-1.00 MiB at 200 MiB')
  expect(text).toContain('| f16 | 32 / 8 | 32,768 | 5.00 | 27.0 | 95 % | 200.0 | 40.0x |')
  expect(text).toContain('| 1,024 | 32.0 MiB | 64.0 MiB | 1.00 | 2.00 | 0.50 | 4.0x |')
  for (const command of ['eval recall', 'eval memory', 'bench decode', 'bench linear']) {
    expect(text).toContain(`npm start -- ${command}`)
  }
})

test('they go between the marks, however often', () => {
  const readme = 'before\n<!-- results: made by tools/results.mjs -->\nold\n<!-- end of results -->\nafter\n'
  const once = replaceBetweenMarks(readme, 'new')
  expect(once).toContain('-->\n\nnew\n\n<!--')
  expect(once).not.toContain('old')
  expect(replaceBetweenMarks(once, 'new')).toBe(once)
  expect(() => replaceBetweenMarks('no marks', 'new')).toThrow('expected')
})
