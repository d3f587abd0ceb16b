/** The command with small shapes. What it finds to be fast is not tested; that it measures what it says is. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import type { AttentionReport } from '../../../bench/attention/contract.ts'
import { runCaptured } from '../testing/captured.ts'

const folder = mkdtempSync(join(tmpdir(), 'kvasir-bench-test-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const bench = (args: string, signal = new AbortController().signal) =>
  runCaptured(['bench', 'attention', '--quick', ...args.split(' ')], { signal })

const small = '--heads 4 --kv-heads 2 --head-dim 32 --repeat 2 --threads 1'

test('decode: all contestants, limits, ratios, a table and a picture', async () => {
  const plot = join(folder, 'decode.svg')
  const { code, stdout, stderr } = await bench(`${small} --lengths 40 --kv-dtype f16 --plot ${plot} --json`)
  expect(code, stderr).toBe(0)
  const report = JSON.parse(stdout) as AttentionReport
  expect(report).toMatchObject({ phase: 'decode', repeat: 2, machine: { cores: expect.any(Number) } })
  expect(Object.keys(report.versions).sort()).toEqual(['kvasir', 'node', 'onnxruntime-node', 'onnxruntime-web'])
  const [first] = report.cases
  expect(first).toMatchObject({ kvDtype: 'f16', queryDtype: 'f32', heads: 4, kvHeads: 2, length: 40, window: null })
  // K and V of 2 heads, 40 rows of 32 numbers of 2 bytes; query and result of 4 heads in f32.
  expect(first).toMatchObject({ bytes: 2 * 2 * 40 * 32 * 2 + 2 * 4 * 32 * 4, flops: 4 * 4 * 40 * 32 })
  expect(first?.skipped.filter(({ candidate }) => candidate !== 'native')).toEqual([])
  const names = first?.results.map(({ candidate }) => candidate) ?? []
  for (const operator of ['gqa', 'mha', 'attention']) {
    expect(names).toContain(`ort-node-${operator}`)
    expect(names).toContain(`ort-web-${operator}`)
  }
  for (const result of first?.results ?? []) {
    expect(result.ms.low).toBeGreaterThan(0)
    expect(result.ms.median).toBeGreaterThanOrEqual(result.ms.low)
    expect(result.ms.high).toBeGreaterThanOrEqual(result.ms.median)
    expect(result.difference).toBeLessThanOrEqual(result.tolerance)
    expect(result.shareOfLimit).toBeGreaterThan(0)
    expect(result.timesOf.wasm).toBeGreaterThan(0)
  }
  const { readGbPerSecond, fmaGflops, ms } = first?.limit ?? { readGbPerSecond: 0, fmaGflops: 0, ms: 0 }
  expect(Math.min(readGbPerSecond, fmaGflops, ms)).toBeGreaterThan(0)
  const svg = readFileSync(plot, 'utf8')
  for (const name of ['wasm', 'ort-web-gqa', 'limit', 'f16, 4 heads, 2 KV heads, D = 32']) expect(svg).toContain(name)
})

test('prefill with a window: the useful pairs are counted, peers without one are named, ours are timed without it', async () => {
  const args = `${small} --phase prefill --lengths 48 --window 16 --candidates wasm,ort-node-gqa,ort-node-mha`
  const { code, stdout, stderr } = await bench(`${args} --json`)
  expect(code, stderr).toBe(0)
  const [only] = (JSON.parse(stdout) as AttentionReport).cases
  // 16 queries see 1 to 16 keys, the other 32 see 16.
  expect(only).toMatchObject({ window: 16, flops: 4 * 4 * 32 * ((16 * 17) / 2 + 32 * 16) })
  expect(only?.results.map(({ candidate }) => candidate)).toEqual(['wasm', 'ort-node-gqa'])
  expect(only?.results[0]?.timeOfIdealShare).toBeGreaterThan(0)
  expect(only?.skipped).toEqual([{ candidate: 'ort-node-mha', skipped: 'has no window' }])
})

test('memory: scratch of a call beside the bytes of all its scores', async () => {
  const { code, stdout, stderr } = await bench(
    '--phase memory --heads 4 --kv-heads 1 --head-dim 16 --lengths 2560 --repeat 1 --candidates wasm,ort-node-gqa --json',
  )
  expect(code, stderr).toBe(0)
  const [only] = (JSON.parse(stdout) as AttentionReport).cases
  const scoreBytes = 4 * 4 * 2560 ** 2
  expect(only).toMatchObject({ scoreBytes, results: [], skipped: [] })
  const [ours, theirs] = only?.memory ?? []
  expect(ours?.scratchBytes.median).toBeLessThan(scoreBytes / 4)
  expect(theirs?.scratchBytes.median).toBeGreaterThan(scoreBytes / 2)
})

test('people get a table, with the limit in it', async () => {
  const { code, stdout, stderr } = await bench(`${small} --lengths 40 --candidates wasm,ort-node-gqa --repeat 1`)
  expect(code).toBe(0)
  expect(stdout).toMatch(/heads +K, V +S +by +from +ms +lowest to highest +GB\/s +of the limit +x wasm\n/)
  expect(stdout).toMatch(/4\/2x32 +f16 +40 +wasm +f16 .* 1\.00x\n/)
  expect(stdout).toMatch(/4\/2x32 +f16 +40 +ort-node-gqa +f(16|32) /)
  expect(stdout).toMatch(/4\/2x32 +f16 +40 +limit /)
  expect(stderr).toMatch(/^Measuring 4 steps \.\.\.\n/)
})

test('an interrupt ends it with exit code 130', async () => {
  const { code, stdout, stderr } = await bench(`${small} --json`, AbortSignal.abort())
  expect({ code, stdout, stderr }).toEqual({ code: 130, stdout: '', stderr: 'interrupted\n' })
})
