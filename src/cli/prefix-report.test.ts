/** What the command line says of shared prefixes. */
import { expect, test } from 'vitest'
import { loadModel } from '../runtime/load-model.ts'
import { prefixLine } from './prefix-report.ts'
import { runCaptured } from './testing/captured.ts'

const counts = { hits: 1, misses: 2, written: 3, corrupt: 0, dropped: 0, failures: 0, skipped: 0, queuedBytes: 0 }

test('a line says what was reused, where it lies and what went', () => {
  const stats = {
    ...{ hits: 1, misses: 2, askedTokens: 1200, reusedTokens: 192, refused: 1 },
    pages: { blocks: 3, bytes: 2 ** 20, evicted: 4 },
    tiers: [
      { ...counts, name: 'ram' as const, bytes: 2 ** 21, evicted: 0 },
      { ...counts, name: 'disk' as const, bytes: 2 ** 22, evicted: 5, corrupt: 1 },
      { ...counts, name: 'redis' as const, evicted: 0, failures: 2, lastError: 'no answer in 50 ms' },
    ],
  }
  expect(prefixLine(stats)).toBe(
    'prefixes: 192 of 1,200 tokens reused in 1 of 3 prompts, 1 refused; pages 1.00 MiB (4 evicted), ram 2.00 MiB, ' +
      'disk 4.00 MiB (5 evicted, 1 damaged), redis (2 failures: no answer in 50 ms)',
  )
  expect(prefixLine(undefined)).toBe('')
})

const generate = (...args: readonly string[]) =>
  runCaptured(['generate', '--prompt', 'Mara put the key away. '.repeat(30), '--max-tokens', '1', ...args], {
    loadModel,
  })

test('generate says it, as a line and in JSON, where prefixes are shared', async () => {
  const sharing = await generate('--prefix-cache')
  expect(sharing.stderr).toMatch(/prefixes: 0 of \d+ tokens reused in 0 of 1 prompt; ram [\d.]+ KiB\n/)
  const { prefixes } = JSON.parse((await generate('--prefix-cache', '--json')).stdout)
  expect(prefixes).toMatchObject({ hits: 0, misses: 1, tiers: [{ name: 'ram', entries: expect.any(Number) }] })
  expect(JSON.parse((await generate('--json')).stdout)).not.toHaveProperty('prefixes')
})
