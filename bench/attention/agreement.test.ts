/** A wrong result must end the bench before anything is timed. */
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { largestDifference } from './agreement.ts'
import type { Candidate, OpenCandidate } from './candidate.ts'
import { candidates } from './candidates.ts'
import { attentionCases } from './cases.ts'
import type { AttentionCase } from './contract.ts'
import { openSession } from './session.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'kvasir-agreement-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const shape = { heads: [4], kvHeads: 2, headDim: 32, threads: 1 } as const
const cases = [
  ...attentionCases({ ...shape, phase: 'decode', lengths: [33], kvDtypes: ['f32', 'f16', 'bf16'] }),
  ...attentionCases({ ...shape, phase: 'prefill', lengths: [19], kvDtypes: ['f32', 'bf16'] }),
  ...attentionCases({ ...shape, phase: 'prefill', lengths: [40], kvDtypes: ['f16'], window: 7 }),
]

/** Opens ours, then another, which must agree. */
async function race(attentionCase: AttentionCase, other: Candidate): Promise<void> {
  const file = join(folder, 'result')
  for (const [name, candidate] of [
    ['wasm', candidates.wasm],
    ['other', other],
  ] as const) {
    const session = await openSession(name, candidate, attentionCase, file)
    await session.close()
  }
}

/** A peer that gets something wrong. */
function broken(base: Candidate, breakIt: (open: OpenCandidate) => Partial<OpenCandidate>, isOurs = false): Candidate {
  return {
    ...base,
    isOurs,
    open: async (attentionCase, dtype) => {
      const opened = await base.open(attentionCase, dtype)
      return { ...opened, ...breakIt(opened) }
    },
  }
}

test.each(cases)('peers agree with ours: $phase, $kvDtype, window $window', async (attentionCase) => {
  for (const name of ['ort-node-gqa', 'ort-node-mha', 'ort-node-attention'] as const) {
    if (candidates[name].supports(attentionCase) === true) await race(attentionCase, candidates[name])
  }
})

test('a peer whose numbers differ ends it, and the message says who and how much', async () => {
  const [first] = cases
  const peer = broken(candidates['ort-node-gqa'], ({ output }) => ({
    output: () => output().map((value, i) => (i === 77 ? value + 0.01 : value)),
  }))
  await expect(race(first!, peer)).rejects.toThrow(
    /the result of other differs from that of the others by 0\.0[01]\d+, expected at most 0\.0001 \(decode, f32, H=4 K=2/,
  )
  expect(existsSync(join(folder, 'result'))).toBe(true)
})

test('a peer that computes NaN, or too little, is wrong too', async () => {
  const nothing = broken(candidates['ort-node-gqa'], () => ({ output: () => new Float32Array(128).fill(Number.NaN) }))
  await expect(race(cases[0]!, nothing)).rejects.toThrow('by Infinity')
  const short = broken(candidates['ort-node-gqa'], ({ output }) => ({ output: () => output().slice(1) }))
  await expect(race(cases[0]!, short)).rejects.toThrow('by Infinity')
})

test('a peer that sees one key more than the window is wrong', async () => {
  const windowed = cases.at(-1)!
  const other: Candidate = {
    ...candidates['ort-node-gqa'],
    open: (attentionCase, dtype) =>
      candidates['ort-node-gqa'].open({ ...attentionCase, window: windowed.window! + 1 }, dtype),
  }
  await expect(race(windowed, other)).rejects.toThrow('differs from that of the others')
})

test('ours are compared with the f64 reference even where nobody else takes part', async () => {
  const ours = broken(candidates.wasm, ({ output }) => ({ output: () => output().map((value) => value * 1.01) }), true)
  const open = openSession('wasm', ours, cases[0]!, join(folder, 'result'))
  await expect(open).rejects.toThrow(/the result of wasm differs from that of the reference at token 0, head \d/)
})

test('differences are of the whole result', () => {
  expect(largestDifference(Float32Array.of(1, 2, 3), Float32Array.of(1, 2, 2.5))).toBe(0.5)
  expect(largestDifference(Float32Array.of(1, Number.NaN, 9), Float32Array.of(1, 1, 1))).toBe(Number.POSITIVE_INFINITY)
})
