/** The command on short prompts. How much faster a reuse is is not tested; that it measures what it says is. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import type { PrefixRow } from '../../../bench/prefix.ts'
import { startRedis, withoutRedis } from '../../cache/tiers/testing/redis-server.ts'
import { runCaptured } from '../testing/captured.ts'

const folder = mkdtempSync(join(tmpdir(), 'kvasir-bench-test-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const bench = (args: string, signal = new AbortController().signal) =>
  runCaptured(['bench', 'prefix', '--threads', '1', '--repeat', '1', ...args.split(' ')], { signal })

test('times of prompts whose beginning is computed, in RAM and on disk, and a picture', {
  timeout: 120_000,
}, async () => {
  const plot = join(folder, 'prefix.svg')
  const { code, stdout, stderr } = await bench(`--policy full --tokens 256 130 --new-tokens 3 --plot ${plot} --json`)
  expect(code, stderr).toBe(0)
  const { model, policy, storage, rows } = JSON.parse(stdout) as { [name: string]: unknown; rows: PrefixRow[] }
  expect({ model, policy, storage }).toEqual({ model: 'kvasir-tiny', policy: 'full', storage: null })
  expect(rows.map(({ source, prefixTokens, reusedTokens }) => [source, prefixTokens, reusedTokens])).toEqual([
    ...[
      ['computed', 256, 0],
      ['computed', 130, 0],
    ],
    ...[
      ['ram', 256, 256],
      ['ram', 130, 128],
    ],
    ...[
      ['disk', 256, 256],
      ['disk', 130, 128],
    ],
  ])
  for (const { newTokens, firstTokenMs, speedup, source } of rows) {
    expect({ newTokens, isTimed: firstTokenMs > 0 && speedup > 0 }).toEqual({ newTokens: 3, isTimed: true })
    if (source === 'computed') expect(speedup).toBe(1)
  }
  const svg = readFileSync(plot, 'utf8')
  for (const name of ['computed', 'ram', 'disk', 'kvasir-tiny', 'tokens in common']) expect(svg).toContain(name)
})

test.skipIf(withoutRedis)(
  'people get a table, with a row for a server that is given',
  { timeout: 120_000 },
  async () => {
    const server = await startRedis()
    const { code, stdout, stderr } = await bench(`--tokens 128 --redis ${server.url} --kv-storage contiguous`)
    await server.stop()
    expect(code, stderr).toBe(0)
    expect(stdout).toMatch(/beginning from +tokens in common +new +reused +ms to first token +times faster\n/)
    expect(stdout).toMatch(/computed +128 +16 +0 +[\d.]+ +1\.0x\n/)
    expect(stdout).toMatch(/redis +128 +16 +128 +[\d.]+ +[\d.]+x\n/)
    expect(stderr).toMatch(/^Measuring 4 cases \.\.\.\n/)
  },
)

test('a server that keeps nothing makes it fail: there is nothing to measure', { timeout: 120_000 }, async () => {
  const { code, stdout, stderr } = await bench('--tokens 128 --redis redis://127.0.0.1:1 --json')
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
  expect(stderr).toContain('with 0 tokens reused (redis)')
})

test.each([
  ['--tokens 63', 'Expected an integer of at least 64.'],
  ['--kv-storage pagd', 'Allowed choices are contiguous, paged (did you mean "paged"?).'],
  ['--random --model x', "cannot be used with option '--model"],
])('%s is refused', async (args, message) => {
  const { code, stdout, stderr } = await bench(args)
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
  expect(stderr).toContain(message)
})

test('an interrupt ends it with exit code 130', async () => {
  const { code, stdout, stderr } = await bench('--tokens 128 --json', AbortSignal.abort())
  expect({ code, stdout, stderr: stderr.split('\n').at(-2) }).toEqual({ code: 130, stdout: '', stderr: 'interrupted' })
})
