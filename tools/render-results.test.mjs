import { expect, test } from 'vitest'
import { renderAttention, renderAttentionInFull } from './render-attention.mjs'
import { renderResults, replaceBetweenMarks } from './render-results.mjs'
import { expectCommands, recallReport } from './testing/figures.mjs'

const recall = recallReport(99)
const sample = { tokens: 1026, kvBytes: 1_056_784, fullKvBytes: 4_200_000, rssBytes: 200 * 2 ** 20 }
const row = { tokens: 1024, fullBytes: 2 ** 25, linearBytes: 2 ** 26, denseMs: 1, fullMs: 2, linearMs: 0.5, speedup: 4 }
const results = {
  machine: { processor: 'a processor', cores: 2, memoryGiB: 24, node: 'v20.20.2' },
  recall: [{ command: 'kvasir eval recall', result: { ...recall, kvBytes: 2 ** 20, fullKvBytes: 258 * 2 ** 20 } }],
  memory: [{ command: 'kvasir eval memory', result: { samples: [sample, sample], rssGrowthBytes: -(2 ** 20) } }],
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

const result = { description: '', dtype: 'f32', gbPerSecond: 27, gflops: 12.5, shareOfLimit: 0.95, timesOf: {} }
const entry = { kvDtype: 'f16', heads: 32, kvHeads: 8, headDim: 128, length: 32_768, window: null, threads: 2 }
const contestants = [
  {
    ...result,
    candidate: 'native',
    dtype: 'f16',
    ms: { median: 5, low: 4, high: 6 },
    timesOf: { native: 1, wasm: 0.5 },
  },
  { ...result, candidate: 'wasm', dtype: 'f16', ms: { median: 10, low: 9, high: 11 }, timesOf: { native: 2, wasm: 1 } },
  { ...result, candidate: 'ort-node-gqa', ms: { median: 200, low: 1, high: 300 }, timesOf: { native: 40, wasm: 20 } },
  { ...result, candidate: 'ort-node-mha', ms: { median: 100, low: 1, high: 300 }, timesOf: { native: 20, wasm: 10 } },
  { ...result, candidate: 'ort-web-gqa', ms: { median: 600, low: 1, high: 900 }, timesOf: { native: 120, wasm: 60 } },
]
const report = {
  machine: { processor: 'a processor', cores: 2, memoryGiB: 24, architecture: 'x64', flags: ['avx512f'] },
  versions: { kvasir: '1', 'onnxruntime-node': '1.30.0' },
  repeat: 5,
}
const limit = { ms: 4.75, readGbPerSecond: 30, fmaGflops: 200 }
const skipped = [{ candidate: 'ort-web-mha', skipped: 'would need 9 GiB' }]
const memory = ['native', 'ort-node-gqa'].map((candidate, i) => ({
  ...{ candidate, dtype: 'f32', scratchBytes: { median: i ? 2 ** 28 : 2 ** 19, low: 2 ** 18, high: 2 ** 28 } },
}))
const windowed = { ...contestants[0], timeOfIdealShare: 1.23 }
const attention = [
  { phase: 'decode', cases: [{ ...entry, limit, results: contestants, skipped }] },
  { phase: 'prefill', cases: [{ ...entry, limit, length: 2048, results: contestants, skipped: [] }] },
  { phase: 'prefill', cases: [{ ...entry, limit, length: 16_384, window: 1024, results: [windowed], skipped: [] }] },
  { phase: 'memory', cases: [{ ...entry, results: [], memory, scoreBytes: 2 ** 34, skipped: [] }] },
].map((run) => ({
  command: `kvasir bench attention --phase ${run.phase} --plot docs/${run.phase}.svg`,
  result: { ...report, ...run },
}))

test('attention: ours beside the fastest of each runtime', () => {
  const text = renderAttention(attention)
  expect(text).toContain('| f16 | 32 / 8 x 128 | 32,768 | 5.000 | 27.0 | 95 % | 100.0 | 20.0x | 10.0 | 600.0 | 60.0x |')
  expect(text).toContain('| f16 | 32 / 8 x 128 | 2,048 | 5.000 | 12.5 | 95 % | 100.0 | 20.0x | 10.0 | 600.0 | 60.0x |')
  expect(text).toContain('window of 1,024 at 16,384 tokens (f16), native takes 5 ms, 1.23 times the time')
  expect(text).toContain('| 32,768 | 16384 MiB | 512 KiB | 256 MiB |')
  expect(text).toContain('npm start -- bench attention --phase memory')
  expect(text).toContain('a processor, 2 cores; onnxruntime 1.30.0')
})

test('attention in full: everyone, the limit, and who was left out', () => {
  const text = renderAttentionInFull(attention)
  expect(text).toContain(
    'a processor (avx512f), 2 cores, 24 GiB. kvasir 1, onnxruntime-node 1.30.0. 2 threads, medians of 5 rounds.',
  )
  expect(text).toContain(
    '| f16 | 32 / 8 x 128 | 32,768 | ort-node-gqa | f32 | 200.0 | 1.000 to 300.0 | 27.0 | 95 % | 40.0x | 20.0x |',
  )
  expect(text).toContain('| f16 | 32 / 8 x 128 | 32,768 | *limit* |  | 4.750 |  | 30.0 |  |  |  |')
  expect(text).toContain('| f16 | 32 / 8 x 128 | 2,048 | *limit* |  | 4.750 |  | 200.0 |  |  |  |')
  expect(text).toContain('- without ort-web-mha at 32,768: would need 9 GiB')
  expect(text).toContain('### Prefill, window 1,024')
  expect(text).toContain('![decode](../docs/decode.svg)')
  expect(text).toContain('| f16 | 32 / 8 x 128 | 32,768 | native | f32 | 512 KiB | 256 KiB to 256 MiB | 16384 MiB |')
})

test('without reports of attention nothing is said of it', () => {
  expect(renderResults(results, [])).not.toContain('Attention')
  expect(renderAttentionInFull([])).toContain('npm run results -- attention')
})

test('figures become tables, each with its command', () => {
  const text = renderResults(results, attention)
  expect(text).toContain('on a processor, 2 cores, 24 GiB, Node v20.20.2')
  expect(text).toContain('| linear | 256 | 65,536 | 99 of 100 | 0.990 | 1.00 MiB | 258 MiB |')
  expect(text).toContain('after 1,026: 1,056,784 bytes')
  expect(text).toContain('-1.00 MiB at 200 MiB')
  expect(text).toContain('| 1,024 | 32.0 MiB | 64.0 MiB | 1.00 | 2.00 | 0.50 | 4.0x |')
  expectCommands(text, ['eval recall', 'eval memory', 'bench attention', 'bench linear'])
})

test('they go between the marks, however often', () => {
  const readme = 'before\n<!-- results: made by tools/results.mjs -->\nold\n<!-- end of results -->\nafter\n'
  const once = replaceBetweenMarks(readme, 'new')
  expect(once).toContain('-->\n\nnew\n\n<!--')
  expect(once).not.toContain('old')
  expect(replaceBetweenMarks(once, 'new')).toBe(once)
  expect(() => replaceBetweenMarks('no marks', 'new')).toThrow('expected')
})
