/** The command on a small layer. What it finds to be fast is not tested; that it measures what it says is. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import type { CacheReport } from '../../../bench/cache/contract.ts'
import { runCaptured } from '../testing/captured.ts'

const folder = mkdtempSync(join(tmpdir(), 'kvasir-bench-test-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const bench = (args: string, signal = new AbortController().signal) =>
  runCaptured(['bench', 'cache', '--quick', '--threads', '1', ...args.split(' ')], { signal })

test('steps, shares and bytes of a cache that grows and of two that do not, and a picture', async () => {
  const plot = join(folder, 'cache.svg')
  const args = `--policies full,linear h2o --kv-dtype f16 --lengths 600,100 --window 50 --repeat 3 --plot ${plot} --json`
  const { code, stdout, stderr } = await bench(args)
  expect(code, stderr).toBe(0)
  const report = JSON.parse(stdout) as CacheReport
  expect(report).toMatchObject({ heads: 4, kvHeads: 2, headDim: 32, window: 50, repeat: 3, steps: 64 })
  expect(report.cases.map(({ policy }) => policy)).toEqual(['full', 'linear', 'h2o'])
  for (const { policy, lengths, flatness, skipped, description } of report.cases) {
    expect(skipped).toEqual([])
    expect(description).toContain('1 thread')
    expect(lengths.map(({ tokens }) => tokens)).toEqual([100, 600])
    for (const { tokens, meanMs, medianMs, worstMs, updateShare, typicalUpdateShare, ...result } of lengths) {
      for (const { low, median, high } of [meanMs, medianMs, worstMs, updateShare, typicalUpdateShare]) {
        expect(0 < low && low <= median && median <= high).toBe(true)
      }
      expect(worstMs.median).toBeGreaterThanOrEqual(medianMs.median)
      expect(updateShare.high).toBeLessThan(1)
      // K and V of 2 heads of 32 numbers.
      expect(result.fullF32Bytes).toBe(tokens * 2 * 2 * 32 * 4)
      const rows = { full: tokens > 512 ? 1024 : 256, linear: 50, h2o: 51 }[policy as 'full']
      expect(result.bytes).toBeGreaterThanOrEqual(rows * 2 * 2 * 32 * 2)
      expect(result.bytes).toBeLessThanOrEqual(rows * 2 * (2 * 32 * 2 + 4))
    }
    if (policy === 'full') expect(flatness).toBeNull()
    else expect(flatness).toMatchObject({ fromTokens: 50, toTokens: 600 - 64 })
    if (flatness) expect(flatness.ratio).toBeGreaterThan(0)
  }
  const svg = readFileSync(plot, 'utf8')
  for (const name of ['f16: a step, on average', 'f16: held', 'linear', 'all tokens in f32', 'MiB']) {
    expect(svg).toContain(name)
  }
})

test('people get tables', async () => {
  const { code, stdout, stderr } = await bench('--policies window --lengths 256 --window 40 --repeat 1')
  expect(code, stderr).toBe(0)
  expect(stdout).toMatch(/policy +K, V +tokens +step ms +typical +slowest +update +typical +held +less than full f32\n/)
  expect(stdout).toMatch(/window +f16 +256 .* KiB +\d+\.\d %\n/)
  expect(stdout).toMatch(/window +f16 +40 +192 +\d\.\d{3}x\n/)
  expect(stderr).toMatch(/^Measuring 2 steps \.\.\.\n/)
})

test('a step with recall is measured beside one without', async () => {
  const options = '--policies full streaming --lengths 256 --window 40 --repeat 1 --recall 2'
  const { code, stdout, stderr } = await bench(`${options} --json`)
  expect(code, stderr).toBe(0)
  const [full, streaming] = (JSON.parse(stdout) as CacheReport).cases
  expect(full?.lengths).toMatchObject([{ recallRatio: null }])
  expect(streaming?.lengths[0]?.recallRatio).toBeGreaterThan(0.5)
  expect((await bench(options)).stdout).toMatch(/tokens +recall beside none\n.*\n? *streaming +f16 +256 +\d+\.\d\dx\n/)
})

test.each([
  ['--policies liner', 'did you mean "linear"'],
  ['--kv-dtype f17', 'did you mean "f16"'],
  ['--lengths 1', 'Expected an integer of at least 2.'],
])('%s is refused', async (args, message) => {
  const { code, stdout, stderr } = await bench(args)
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
  expect(stderr).toContain(message)
})

test('an interrupt ends it with exit code 130', async () => {
  const { code, stdout, stderr } = await bench('--policies window --json', AbortSignal.abort())
  expect({ code, stdout, stderr: stderr.split('\n').at(-2) }).toEqual({ code: 130, stdout: '', stderr: 'interrupted' })
})
