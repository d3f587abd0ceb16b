import { expect, test } from 'vitest'
import { renderGenerate, renderGenerateInShort } from './render-generate.mjs'
import { spread } from './testing/figures.mjs'

const model = {
  shape: 'tiny',
  weights: 'int4',
  agreement: [{ candidate: 'kvasir', tokens: 16, equalTokens: 15, difference: 0.004, tolerance: 0.02 }],
  load: [{ candidate: 'kvasir', ms: spread(120), ratio: 1.25 }],
  cases: [
    {
      kind: 'decode',
      tokens: 32_768,
      results: [
        { candidate: 'kvasir', ms: spread(4), peakBytes: spread(2 ** 30), speedup: null, peakRatio: null },
        { candidate: 'onnxruntime', ms: spread(40), peakBytes: spread(2 ** 31), speedup: 1, peakRatio: 1 },
      ],
      skipped: [{ candidate: 'kvasir-window', skipped: 'no memory' }],
    },
  ],
}
const result = {
  machine: { processor: 'a processor', cores: 2, memoryGiB: 24 },
  versions: { kvasir: '0.1.0' },
  ...{ threads: 1, repeat: 3, models: [model] },
}

test('times, loads, agreement, who is missing, the picture and the command', () => {
  const text = renderGenerate([{ command: 'kvasir bench generate --plot docs/results/generate.svg', result }])
  expect(text).toContain('a processor, 2 cores, 24 GiB. kvasir 0.1.0. 1 thread, medians of 3 rounds.')
  expect(text).toContain('| tiny | int4 | decode | `kvasir` | 32,768 | 4.00 | 2.00 to 8.00 |  | 1024 MiB |  |')
  expect(text).toContain(
    '| tiny | int4 | decode | `onnxruntime` | 32,768 | 40.0 | 20.0 to 80.0 | 1.00x | 2048 MiB | 1.00x |',
  )
  expect(text).toContain('| tiny | int4 | `kvasir` | 120.0 | 1.25x | 15 of 16 | 4.0e-3 |')
  expect(text).toContain('- `kvasir-window` did not take part in tiny int4, decode 32,768: no memory')
  expect(text).toContain('![ms a token over the context](../docs/results/generate.svg)')
  expect(text).toContain('npm start -- bench generate --plot')
})

test('in short: a line a case, the others beside ours, and the first picture', () => {
  const run = (plot) => ({ command: `kvasir bench generate --plot ${plot}`, result: { ...result, window: 2048 } })
  const text = renderGenerateInShort([run('docs/a.svg'), run('docs/b.svg')])
  expect(text.match(/!\[.*/g)).toEqual(['![ms a token over the context](docs/a.svg)'])
  expect(text).toContain('| tiny | int4 | decode | 32,768 | 4.00 |  | 40.0 |  |  |  |')
  expect(text).toContain('W: the policy `window` of 2,048.')
  expect(text).not.toContain('node-llama-cpp')
})

test('nothing measured, nothing said', () => {
  expect(renderGenerateInShort([])).toBe('')
  expect(renderGenerate([])).toBe('')
})
