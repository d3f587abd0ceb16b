import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { attentionBytes, attentionFlops, type CountedKvDtype } from '../attention/index.ts'
import { plan } from './plan-figures.ts'
import { byteCount, tokenCount } from './plan-options.ts'
import type { PlanShape } from './plan-shape.ts'
import { runCaptured } from './testing/captured.ts'
import { gemma2, llama } from './testing/configs.ts'

const folder = mkdtempSync(join(tmpdir(), 'kvasir-plan-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** Runs `kvasir plan`; no model may be loaded. */
async function kvasirPlan(args: string, config?: unknown) {
  const file = join(folder, 'config.json')
  if (config !== undefined) writeFileSync(file, typeof config === 'string' ? config : JSON.stringify(config))
  const words = ['plan', ...(config === undefined ? [] : ['--config', file]), ...args.split(' ').filter(Boolean)]
  return await runCaptured(words)
}

const json = async (args: string, config?: unknown) => JSON.parse((await kvasirPlan(`${args} --json`, config)).stdout)

const tiny: PlanShape = {
  ...{ numLayers: 3, numHeads: 4, numKvHeads: 2, headDim: 8, valueDim: 8, hasImportance: false },
  layerWindows: [null, 16, null],
}

test('the figures are those of the public functions, layer by layer', () => {
  const request = { contextTokens: 100, window: 50, kvDtype: 'f16' as CountedKvDtype, batch: 2, budgetBytes: 100_000 }
  const { steps, isBounded } = plan(tiny, request)
  const flops = (numTokens: number, causal: boolean, windows: readonly (number | undefined)[]) =>
    windows.reduce<number>((sum, window) => {
      const sizes = { numTokens, numKeys: 100, numHeads: 4, headDim: 8, causal, window }
      return sum + 2 * attentionFlops(sizes).total.flops
    }, 0)
  const all = [undefined, undefined, undefined]
  expect(isBounded).toBe(true)
  expect(steps.map((step) => step.flops)).toEqual([
    flops(100, false, all),
    flops(100, true, all),
    flops(100, true, [50, 16, 50]),
    flops(1, true, all),
    flops(1, true, [50, 16, 50]),
  ])
  const { numLayers, numHeads, numKvHeads, headDim } = tiny
  const sizes = { numLayers, numHeads, numKvHeads, headDim, dtype: 'f16' as const, numTokens: 100, batch: 2 }
  expect(steps.map((step) => step.bytes)).toEqual([
    ...[null, null, null, attentionBytes(sizes).total],
    attentionBytes({ ...sizes, window: 50, layerWindows: tiny.layerWindows }).total,
  ])
})

test('MHA, GQA and MQA stand beside each other, and the budget is divided', () => {
  const { heads, saved } = plan(tiny, { contextTokens: 100, kvDtype: 'f16', batch: 5, budgetBytes: 20_000 })
  expect(heads).toMatchObject([
    { kind: 'mha', numKvHeads: 4, bytesPerToken: 384, fullBytes: 5 * 38_400, fullSessions: 0 },
    { kind: 'gqa', numKvHeads: 2, bytesPerToken: 192, fullBytes: 5 * 19_200, fullSessions: 1, sessions: 1 },
    { kind: 'mqa', numKvHeads: 1, bytesPerToken: 96, fullBytes: 5 * 9600, bytes: 5 * 32 * 216, sessions: 2 },
  ])
  expect(saved).toEqual({ byWindow: 5 * 84 * 64, byDtype: 5 * 19_200 })
  const kinds = (numHeads: number, numKvHeads: number) =>
    plan({ ...tiny, numHeads, numKvHeads }, { contextTokens: 1, kvDtype: 'f32', batch: 1, budgetBytes: 1 }).heads.map(
      ({ kind }) => kind,
    )
  expect([kinds(4, 4), kinds(4, 1), kinds(1, 1)]).toEqual([['mha', 'mqa'], ['mha', 'mqa'], ['mha']])
})

test('sizes on the command line', () => {
  const tokens = tokenCount(2 ** 26)
  expect(['1', '131072', '128K', '1.5k', '1M', '64M'].map(tokens)).toEqual([1, 131072, 131072, 1536, 2 ** 20, 2 ** 26])
  for (const text of ['', '0', '-1', '1e3', '0.3K', '128KB', '65M', 'K']) expect(() => tokens(text), text).toThrow()
  const bytes = ['1', '8GiB', '8 GB', '512MiB', '1.5kib', '7b', '1PiB'].map(byteCount)
  expect(bytes).toEqual([1, 8 * 2 ** 30, 8e9, 2 ** 29, 1536, 7, 2 ** 50])
  for (const text of ['', '0', '-1GiB', '8G', '8iB', '9000PiB', '0.1B', 'GiB']) {
    expect(() => byteCount(text), text).toThrow()
  }
})

test('the bundled model is planned as its cache will be', async () => {
  const result = await json('--context 65536')
  expect(Object.keys(result)).toEqual([
    ...['model', 'shape', 'contextTokens', 'window', 'kvDtype', 'batch', 'budgetBytes'],
    ...['isBounded', 'steps', 'dtypes', 'heads', 'saved'],
  ])
  expect(result).toMatchObject({ model: 'kvasir-tiny', window: 256, kvDtype: 'f32', budgetBytes: 8 * 2 ** 30 })
  // What `kvasir eval memory` and `kvasir eval recall` report for it.
  expect(result.dtypes[0]).toMatchObject({ dtype: 'f32', bytes: 1_056_768, fullBytes: 258 * 2 ** 20 })
})

test('what is saved is never rounded to everything', async () => {
  const { stdout } = await kvasirPlan('--context 1M')
  expect(stdout).toMatch(/int4 .* > 99\.9 % /)
  expect(stdout).not.toContain('100.0 %')
})

test('plan prints tables', async () => {
  const { code, stdout, stderr } = await kvasirPlan('--context 128K --window 4K --kv-dtype f16 --batch 2', llama)
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  expect(stdout).toMatch(/32 +32 +8 +128 +none +no\n/)
  expect(stdout).toMatch(/no cache, every pair +4\.504 P +4\.504 P +18\.01 P\s/)
  expect(stdout).toMatch(/cache of all tokens +34\.36 G +34\.36 G +137\.4 G +32\.0 GiB\n/)
  expect(stdout).toMatch(/f16 \* +128 KiB +32\.0 GiB +50\.0 % +0 +1,024 MiB +98\.4 % +16\n/)
  expect(stdout).toMatch(/MHA, 32 +512 KiB[\s\S]*GQA, 8 \* +128 KiB[\s\S]*MQA, 1 +16\.0 KiB/)
  expect(stdout).toContain('Kept: at most 4,096 tokens for each KV head. That saves 31.0 GiB of 32.0 GiB (96.9 %).')
  expect(stdout).toContain('All tokens in f16 instead of f32: that saves 32.0 GiB (50.0 %).')
  expect(stdout).toContain('Into 8.00 GiB fit 16 sessions of 131,072 tokens in f16 (0 with all tokens).')
  for (const units of columnUnits(stdout)) expect(units).toHaveLength(1)
  for (const line of stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(100)
})

test('bytes of a column are in one unit', async () => {
  const { stdout } = await kvasirPlan('--context 10K --window 200')
  expect(stdout).toMatch(/f32 \* +4,128 B +40\.3 MiB [\s\S]*int4 +608 B +6\.04 MiB/)
  for (const units of columnUnits(stdout)) expect(units).toHaveLength(1)
})

/** The units in each column of bytes of each table. */
function columnUnits(text: string): string[][] {
  const tables = text.split('\n\n').map((table) => table.split('\n').slice(1))
  return tables.flatMap((lines) => {
    const cells = lines.map((line) =>
      line.split(/ {2,}/).map((cell) => /^[\d.,]+ ([KMGT]?i?B)$/.exec(cell.trim())?.[1]),
    )
    const columns = Math.max(...cells.map(({ length }) => length))
    const units = Array.from({ length: columns }, (_, n) => new Set(cells.flatMap((row) => row.at(n - columns) ?? [])))
    return units.filter(({ size }) => size > 0).map((set) => [...set])
  })
}

test('without windows there are no columns of what is kept; own windows are named', async () => {
  const plain = await kvasirPlan('--context 4096 --kv-dtype int8', llama)
  expect(plain.stdout).not.toMatch(/kept/i)
  const { stdout } = await kvasirPlan('--context 8K', gemma2)
  expect(stdout).toContain('4,096 in 21 layers')
  expect(stdout).toContain("Kept: what the model's own windows hold. That saves 1.31 GiB of 5.25 GiB (25.0 %).")
})

test('what does not fit or saves nothing is said', async () => {
  const small = await kvasirPlan('--context 128K --kv-dtype f16 --budget 1MiB', llama)
  expect(small.code).toBe(0)
  expect(small.stdout).toContain('Not one session of 131,072 tokens in f16 fits into 1.00 MiB: one takes 16.0 GiB.')
  const batch = await kvasirPlan('--context 128K --kv-dtype f16 --budget 33GiB --batch 3', llama)
  expect(batch.stdout).toContain('Into 33.0 GiB fit 2 sessions of')
  expect(batch.stdout).toContain('The batch of 3 does not fit: it takes 48.0 GiB.')
  const idle = await kvasirPlan('--context 1K --window 4K --json', llama)
  expect(idle.stderr).toBe('note: the window of 4,096 tokens is larger than the context of 1,024: it saves nothing\n')
  expect(JSON.parse(idle.stdout)).toMatchObject({ isBounded: false, window: 4096, saved: { byWindow: 0 } })
})

const wrong: readonly (readonly [args: string, config: unknown, code: number, message: RegExp])[] = [
  ['--kv-dtype fp16', llama, 2, /for --kv-dtype, got "fp16" \(did you mean "f16"\?\)/],
  ['--context 0', llama, 2, /Expected a number of tokens from 1 to 67108864, such as 131072 or 128K/],
  ['--context 1G', llama, 2, /argument '1G' is invalid/],
  ['--window 0', llama, 2, /Expected a number of tokens/],
  ['--budget 8G', llama, 2, /Expected a number of bytes below 2\^53, such as 8GiB/],
  ['--batch 0', llama, 2, /Expected an integer of at least 1/],
  ['--batch 9007199254740991', llama, 2, /expected sizes that give less than 2\^53 for bytes/],
  ['--model x', llama, 2, /cannot be used with option/],
  ['--model no/such/folder', undefined, 1, /expected a readable file at no.such.folder.config\.json/],
  ['', '{"n_layer": ', 1, /expected JSON/],
  ['', { ...llama, num_hidden_layers: -3 }, 1, /expected a positive integer for "num_hidden_layers", got -3/],
]

test.each(wrong)('wrong input: kvasir plan %s', async (args, config, code, message) => {
  const result = await kvasirPlan(`${args} --json`, config)
  expect(result.stderr).toMatch(message)
  expect({ code: result.code, stdout: result.stdout }).toEqual({ code, stdout: '' })
})
