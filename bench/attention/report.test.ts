import { expect, test } from 'vitest'
import { attentionCases, countWork } from './cases.ts'
import type { AttentionReport, CandidateName } from './contract.ts'
import { plotAttention } from './plot.ts'
import { type Round, roofline, summarise } from './report.ts'
import type { Measurement, SessionFacts } from './session.ts'

const [decode] = attentionCases({ kvDtypes: ['f16'], heads: [32], lengths: [32_768], threads: 2 })
const facts = { description: 'x', dtype: 'f32', versions: {}, difference: 0, tolerance: 1e-4, firstMs: 1 } as const

test('work of a decode step and of a prefill', () => {
  const kv = 2 * 8 * 32_768 * 128 * 2
  expect(countWork(decode!)).toEqual({ bytes: kv + 2 * 32 * 128 * 4, flops: 4 * 32 * 32_768 * 128 })
  const [prefill] = attentionCases({ phase: 'prefill', kvDtypes: ['bf16'], heads: [32], lengths: [2048], threads: 2 })
  expect(prefill?.queryDtype).toBe('bf16')
  const flops = 4 * 32 * ((2048 * 2049) / 2) * 128
  expect(countWork(prefill!)).toEqual({ bytes: 2 * (8 + 32) * 2048 * 128 * 2, flops })
})

test('a window leaves a share of the pairs, and of the rows that a decode step reads', () => {
  const [windowed] = attentionCases({ phase: 'prefill', lengths: [16_384], window: 1024 })
  const pairs = (1024 * 1025) / 2 + (16_384 - 1024) * 1024
  expect(countWork(windowed!).flops).toBe(4 * 32 * 128 * pairs)
  const [step] = attentionCases({ kvDtypes: ['f32'], heads: [8], lengths: [4096], window: 1024 })
  expect(countWork(step!).bytes).toBe(2 * 8 * 1024 * 128 * 4 + 2 * 8 * 128 * 4)
  expect(attentionCases({ lengths: [512], window: 1024 })[0]?.window).toBe(null)
})

test('the limit is the larger of the time of bytes and that of operations', () => {
  expect(roofline({ bytes: 4e9, flops: 1e9 }, { readGbPerSecond: 40, fmaGflops: 200 })).toBeCloseTo(100)
  expect(roofline({ bytes: 1e9, flops: 100e9 }, { readGbPerSecond: 40, fmaGflops: 200 })).toBeCloseTo(500)
})

test('shares and ratios are medians of those of the rounds', () => {
  const { bytes } = countWork(decode!)
  const round = (readGbPerSecond: number, ms: number, peerMs: number): Round =>
    new Map<string, Measurement>([
      ['native', { ms, limits: { readGbPerSecond, fmaGflops: 1e9 } }],
      ['ort-node-gqa', { ms: peerMs }],
    ])
  // The machine is half as fast in the second round, and so is everyone.
  const rounds = [round(40, 5, 100), round(20, 10, 200), round(40, 5, 110)]
  const both = new Map<CandidateName, SessionFacts>([
    ['native', { ...facts, dtype: 'f16' }],
    ['ort-node-gqa', facts],
  ])
  const { limit, results } = summarise(decode!, both, rounds)
  const [ours, theirs] = results
  expect(limit?.readGbPerSecond).toBe(40)
  expect(limit?.ms).toBeCloseTo(bytes / 40e6)
  expect(ours).toMatchObject({ ms: { median: 5, low: 5, high: 10 }, timesOf: { native: 1 } })
  expect(ours?.shareOfLimit).toBeCloseTo(bytes / 40e6 / 5)
  expect(theirs).toMatchObject({ timesOf: { native: 20 }, ownLimits: undefined })
})

test('who is slow has the ratios of the rounds in which it was timed', () => {
  const both = new Map<CandidateName, SessionFacts>([
    ['native', facts],
    ['ort-web-mha', facts],
  ])
  const own = (ms: number) => ['native', { ms, limits: { readGbPerSecond: 40, fmaGflops: 200 } }] as const
  const rounds: Round[] = [new Map<string, Measurement>([own(5), ['ort-web-mha', { ms: 6000 }]]), new Map([own(6)])]
  const [, slow] = summarise(decode!, both, rounds).results
  expect(slow).toMatchObject({ ms: { median: 6000, low: 6000, high: 6000 }, timesOf: { native: 1200 } })
  expect(slow?.shareOfLimit).toBeGreaterThan(0)
})

test('without ours there is no limit', () => {
  const alone = new Map([['ort-node-gqa', facts]] as const)
  const { limit, results } = summarise(decode!, alone, [new Map([['ort-node-gqa', { ms: 3 }]])])
  expect(limit).toBe(undefined)
  expect(results[0]).toMatchObject({ shareOfLimit: null, timesOf: {} })
})

test('a picture has a panel for each type and number of heads, even of a single length', async () => {
  const sizes = [
    { ...decode!, length: 512 },
    { ...decode!, heads: 8, length: 512 },
    { ...decode!, length: 2048 },
  ]
  const result = { ...facts, candidate: 'wasm', ms: { median: 2, low: 1, high: 3 }, gbPerSecond: 1, gflops: 1 } as const
  const cases = sizes.map((size) => ({
    ...{ ...size, ...countWork(size), limit: { readGbPerSecond: 40, fmaGflops: 200, ms: 1 }, skipped: [] },
    results: [{ ...result, shareOfLimit: 0.5, timesOf: {} }],
  }))
  const machine = { processor: 'a processor', cores: 2, memoryGiB: 24, architecture: 'x64', flags: [] }
  const report: AttentionReport = { machine, versions: {}, phase: 'decode', repeat: 1, cases }
  const svg = await plotAttention(report)
  for (const text of ['f16, 32 heads, 8 KV heads, D = 128', 'f16, 8 heads', 'wasm', 'limit'])
    expect(svg).toContain(text)
  expect(svg).not.toContain('NaN')
})
