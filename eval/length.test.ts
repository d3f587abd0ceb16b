/** kvasir-tiny, which was trained on up to 1,024 tokens, far beyond them. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { CausalLM } from '../src/runtime/contract.ts'
import { loadModel } from '../src/runtime/index.ts'
import { createDocument } from './document.ts'
import { evalLength, type LengthOptions } from './length.ts'

let model: CausalLM
let options: Omit<LengthOptions, 'caches' | 'times'>
beforeAll(async () => {
  model = await loadModel('models/kvasir-tiny', { threads: 1 })
  const { tokens } = createDocument(model.tokenizer, { seed: 1000, tokens: 8192, facts: 60, placement: 'spread' })
  options = { tokens, trained: 1024, window: 256, predict: 192, seed: 7 }
})
afterAll(() => model.dispose())

/** Nats a token; between texts the loss differs by more. */
const bound = 0.05

test('a window by rank predicts and writes at 8 times the trained length as within it', async () => {
  const done: number[] = []
  const onProgress = (tokens: number, total: number) => done.push(tokens / total)
  const { rows } = await evalLength(model, { ...options, caches: ['streaming:rank'], times: [8, 1], onProgress })
  expect(rows.map(({ cache, tokens }) => [cache, tokens])).toEqual([
    ['streaming:rank', 1024],
    ['streaming:rank', 8192],
  ])
  for (const { loss, freshLoss, writtenLoss, freshWrittenLoss } of rows) {
    expect(loss).toBeLessThan(freshLoss + bound)
    // What is drawn by chance differs more.
    expect(writtenLoss).toBeLessThan(freshWrittenLoss + 8 * bound)
  }
  expect(rows[1]!.kvBytes).toBe(rows[0]!.kvBytes)
  expect(done.at(-1)).toBeGreaterThan(0.95)
})

test('with everything kept it does not', async () => {
  const { rows } = await evalLength(model, { ...options, caches: ['full'], times: [1, 6] })
  const [within, beyond] = rows
  expect(Math.abs(within!.loss - within!.freshLoss)).toBeLessThan(1e-4)
  expect(beyond!.loss).toBeGreaterThan(beyond!.freshLoss + 4 * bound)
  expect(beyond!.writtenLoss).toBeGreaterThan(beyond!.freshWrittenLoss + 4 * bound)
})

test.each<[Partial<LengthOptions>, RegExp]>([
  [{ caches: ['streaming:ranks'] }, /expected one of "original", "rank" for positions, got "ranks"/],
  [{ caches: ['streaming:rank:2'] }, /expected a policy, or policy:positions/],
  [{ caches: ['steaming'] }, /did you mean "streaming"/],
  [{ times: [9] }, /expected a text of at least 9216 tokens, got 8\d\d\d/],
  [{ predict: 600 }, /expected predict up to half of trained, got 600/],
])('%j is refused before anything is read', async (change, message) => {
  const onProgress = () => expect.unreachable()
  const given = { ...options, caches: ['streaming'], times: [1], onProgress, ...change }
  await expect(evalLength(model, given)).rejects.toThrow(message)
})
