import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type CausalLM, loadModel } from '../src/runtime/index.ts'
import { evalDtypes } from './dtypes.ts'
import { type Passage, storyPassages } from './passages.ts'

let model: CausalLM
let passages: Passage[]
beforeAll(async () => {
  model = await loadModel(fileURLToPath(new URL('../models/kvasir-tiny', import.meta.url)), {
    worker: false,
    threads: 1,
  })
  passages = [...storyPassages(model.tokenizer, { contextTokens: 400, questions: 4, questionsPerDocument: 4, seed: 2 })]
})
afterAll(() => model.dispose())

test('the coarser the type, the further from f16; K and V may differ', async () => {
  const types = ['f32', 'int8', 'fp8-e5m2', 'int8/f32']
  const { rows, reference, referenceBytes } = await evalDtypes(model, { passages, types })
  expect(reference).toBe('f16')
  expect(rows.map(({ type, keys, values }) => [type, keys, values])).toEqual([
    ['f32', 'f32', 'f32'],
    ['int8', 'int8', 'int8'],
    ['fp8-e5m2', 'fp8-e5m2', 'fp8-e5m2'],
    ['int8/f32', 'int8', 'f32'],
  ])
  const [exact, int8, fp8, keys] = rows.map(({ meanKl }) => meanKl) as [number, number, number, number]
  expect(exact).toBeLessThan(keys)
  expect(keys).toBeLessThan(fp8)
  expect(int8).toBeLessThan(fp8)
  expect(rows[1]!.topAgreement).toBeGreaterThan(0.95)
  expect(rows[0]!.kvBytes).toBeGreaterThan(referenceBytes)
  expect(rows[1]!.kvBytes).toBeLessThan(referenceBytes)
})

test('with a window all caches have it', async () => {
  const { rows, window, policy } = await evalDtypes(model, { passages, types: ['int8'], policy: 'window', window: 64 })
  expect({ window, policy }).toEqual({ window: 64, policy: 'window' })
  expect(rows[0]!.kvBytes).toBeLessThan(64 * 4 * 2 * 2 * (64 + 8) + 1)
  expect(rows[0]!.topAgreement).toBeGreaterThan(0.9)
})

test('unknown types are refused', async () => {
  await expect(evalDtypes(model, { passages, types: ['int9'] })).rejects.toThrow('did you mean "int8"')
  await expect(evalDtypes(model, { passages, types: ['int8/int4/f16'] })).rejects.toThrow('as in int8/int4')
})
