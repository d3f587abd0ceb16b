/** The command on a model of two layers. What it finds to be fast is not tested; that it measures what it says is. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import type { GenerateReport } from '../../../bench/generate/contract.ts'
import { runCaptured } from '../testing/captured.ts'

const folder = mkdtempSync(join(tmpdir(), 'kvasir-bench-test-'))
beforeAll(() => void vi.stubEnv('KVASIR_CACHE', folder))
afterAll(() => {
  vi.unstubAllEnvs()
  rmSync(folder, { recursive: true, force: true })
})

const bench = (args: string, signal = new AbortController().signal) =>
  runCaptured(['bench', 'generate', ...args.split(' ')], { signal })

const small = '--quick --threads 1 --contexts 40 --window 100'

test('all candidates, all tasks, their agreement, loads and peaks, and a picture', { timeout: 120_000 }, async () => {
  const plot = join(folder, 'generate.svg')
  const { code, stdout, stderr } = await bench(`${small} --weights int4 --plot ${plot} --json`)
  expect(code, stderr).toBe(0)
  const report = JSON.parse(stdout) as GenerateReport
  expect(report).toMatchObject({ threads: 1, window: 100, repeat: 1, machine: { cores: expect.any(Number) } })
  expect(Object.keys(report.versions).sort()).toEqual(['kvasir', 'node', 'onnxruntime-node'])
  const absent = { candidate: 'node-llama-cpp', skipped: expect.stringContaining('--peers installs it') }
  expect(report.absent).toEqual([absent])
  expect(report.models.map(({ shape, weights }) => `${shape} ${weights}`)).toEqual(['tiny int4'])
  for (const { agreement, load, cases, fileBytes, parameters } of report.models) {
    expect(parameters).toBe(106_880)
    expect(fileBytes).toBeGreaterThan(100_000)
    expect(agreement.map(({ candidate }) => candidate)).toEqual(['onnxruntime', 'kvasir', 'kvasir-window'])
    const [stock, ...own] = agreement
    expect(stock!.tolerance).toBe(stock!.difference)
    for (const { tokens, tolerance, difference } of own) {
      expect({ tokens, tolerance }).toEqual({ tokens: 16, tolerance: 2 * stock!.difference })
      expect(difference).toBeLessThanOrEqual(tolerance)
      expect(difference).toBeGreaterThan(0) // two programs, not one with itself
    }
    expect(load.map(({ ms }) => ms.low > 0)).toEqual([true, true, true, true])
    expect(cases.map(({ kind, tokens }) => `${kind} ${tokens}`)).toEqual(['decode 40', 'prefill 128'])
    for (const { kind, results, skipped } of cases) {
      expect(skipped).toEqual([])
      const both = ['kvasir', 'kvasir-window', 'onnxruntime']
      expect(results.map(({ candidate }) => candidate)).toEqual(
        kind === 'decode' ? both : [...both, 'onnxruntime-chunks'],
      )
      for (const { ms, peakBytes, speedup, peakRatio } of results) {
        expect(Math.min(ms.low, speedup!, peakRatio!)).toBeGreaterThan(0)
        expect(peakBytes.median).toBeGreaterThan(2 ** 24)
      }
    }
  }
  const svg = readFileSync(plot, 'utf8')
  for (const name of ['kvasir-window', 'onnxruntime', 'tiny, int4', 'ms a token']) expect(svg).toContain(name)
})

test('people get tables; a checkpoint that is there is not written again', { timeout: 120_000 }, async () => {
  const place = join(folder, 'bench')
  const [model] = readdirSync(place)
  const checkpoint = join(place, model!, 'checkpoint', 'model.safetensors')
  const before = statSync(checkpoint).mtimeMs
  const few = '--weights f32 --tasks decode --candidates kvasir-window,onnxruntime'
  const { code, stdout, stderr } = await bench(`${small} ${few}`)
  expect(code, stderr).toBe(0)
  expect(statSync(checkpoint).mtimeMs).toBe(before)
  expect(stdout).toMatch(/model +weights +task +by +tokens +ms +lowest to highest +speed-up +peak memory +of ORT\n/)
  expect(stdout).toMatch(/tiny +f32 +decode +onnxruntime +40 .* 1\.00x +[\d.]+ MiB +1\.00x\n/)
  expect(stdout).toMatch(/tiny +f32 +kvasir-window .* 1[0-6] of 16 +\S+ +1\.0e-4\n/)
  expect(stderr).toMatch(/^Measuring 5 steps \.\.\.\n/)
})

test.each([
  ['--shape qwen3-0.6', 'Allowed choices are smollm2-135m, qwen3-0.6b, tiny (did you mean "qwen3-0.6b"?).'],
  ['--weights in8', 'Allowed choices are f32, int8, int4 (did you mean "int8"?).'],
  ['--contexts 100000', 'expected an integer in 1..40896 for context, got 100000'],
  ['--context 8', "unknown option '--context'"],
  ['--candidates kvasi', 'Allowed choices are kvasir, kvasir-window, onnxruntime, onnxruntime-chunks, node-llama-cpp'],
  ['--tasks decod', 'Allowed choices are decode, prefill (did you mean "decode"?).'],
])('%s is refused', async (args, message) => {
  const { code, stdout, stderr } = await bench(args)
  expect({ code: code > 0, stdout }).toEqual({ code: true, stdout: '' })
  expect(stderr).toContain(message)
})

test('an interrupt ends it and leaves nothing by half', async () => {
  vi.stubEnv('KVASIR_CACHE', join(folder, 'interrupted'))
  const { code, stdout, stderr } = await bench(`${small} --json`, AbortSignal.abort())
  expect({ code, stdout }).toEqual({ code: 130, stdout: '' })
  expect(stderr).toContain('interrupted')
  const [model] = readdirSync(join(folder, 'interrupted', 'bench'))
  expect(readdirSync(join(folder, 'interrupted', 'bench', model!))).toEqual([])
})
