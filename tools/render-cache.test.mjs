import { expect, test } from 'vitest'
import { renderCache } from './render-cache.mjs'
import { spread } from './testing/figures.mjs'

const entry = {
  ...{ tokens: 65_536, meanMs: spread(0.5), medianMs: spread(0.4), worstMs: spread(12) },
  ...{ updateShare: spread(0.25), typicalUpdateShare: spread(0.125), bytes: 2 ** 23, fullF32Bytes: 2 ** 29 },
}
const result = {
  machine: { processor: 'a processor', cores: 2 },
  ...{ heads: 32, kvHeads: 8, headDim: 128, window: 2048, threads: 2, repeat: 5, steps: 512 },
  cases: [
    {
      ...{ policy: 'linear', kvDtype: 'f16', lengths: [{ ...entry, recallRatio: 1.234 }] },
      flatness: { fromTokens: 2048, toTokens: 65_024, ratio: 0.987 },
    },
    { policy: 'full', kvDtype: 'f16', lengths: [entry, { ...entry, recallRatio: null }], flatness: null },
  ],
}

test('steps, shares, bytes, flatness where there is one, the picture and the command', () => {
  const text = renderCache([{ command: 'kvasir bench cache --plot docs/results/cache.svg', result }])
  expect(text).toContain('a processor, 2 cores, 2 threads. One layer of 32 heads, 8 for keys and values, D = 128')
  expect(text).toContain('| `linear` | f16 | 65,536 | 0.500 | 0.400 | 12.0 | 25.0 % | 12.5 % | 8.00 MiB | 98.4 % |')
  expect(text).toContain('| `linear` | f16 | 2,048 | 65,024 | 0.987 |')
  expect(text).toContain('| `linear` | f16 | 65,536 | 1.23 |')
  expect(text).not.toContain('| `full` | f16 | 2,048')
  expect(text.match(/65,536 \| \d\.\d\d \|$/gm)).toHaveLength(1)
  expect(text).toContain('![steps and bytes over tokens](../docs/results/cache.svg)')
  expect(text).toContain('npm start -- bench cache --plot')
  expect(renderCache([])).toBe('')
})
