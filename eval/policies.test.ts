import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { CacheOptions } from '../src/cache/contract.ts'
import { type CausalLM, loadModel } from '../src/runtime/index.ts'
import { ask } from './ask.ts'
import { compareCaches, tokensToRead } from './compare.ts'
import { createDocument } from './document.ts'
import { type Passage, storyPassages, textPassages } from './passages.ts'
import { allPolicies, evalPolicies } from './policies.ts'

const folder = fileURLToPath(new URL('../models/kvasir-tiny', import.meta.url))
const story = { contextTokens: 400, questions: 9, questionsPerDocument: 5, seed: 7 }

let model: CausalLM
let passages: Passage[]
beforeAll(async () => {
  model = await loadModel(folder, { worker: false, threads: 1 })
  passages = [...storyPassages(model.tokenizer, story)]
})
afterAll(() => model.dispose())

/** Answers right by generation, one question after the other. */
async function answersRight(options: Partial<CacheOptions>): Promise<number> {
  let right = 0
  for (const [index, { context, continuations }] of passages.entries()) {
    const size = { seed: story.seed + index, tokens: story.contextTokens, facts: continuations.length }
    const { questions } = createDocument(model.tokenizer, { ...size, placement: 'spread' })
    const cache = model.createCache(options)
    await model.prefill(cache, context)
    for (const question of questions) right += Number((await ask(model, cache, question)).isCorrect)
    cache.dispose()
  }
  return right
}

test('an answer is right when generation gives it, whichever caches answer beside it', async () => {
  const caches: Partial<CacheOptions>[] = [
    { policy: 'window', window: 100 },
    { policy: 'snapkv', window: 200 },
    { policy: 'linear', window: 40 },
  ]
  const { groups, reference } = await compareCaches(model, {
    passages,
    reference: { policy: 'full' },
    groups: [caches],
  })
  const expected = []
  for (const options of caches) expected.push(await answersRight(options))
  expect(groups[0]?.map(({ correct }) => correct)).toEqual(expected)
  expect(reference).toMatchObject({ questions: 9, correct: await answersRight({ policy: 'full' }), topAgreement: 1 })
  expect(new Set(expected).size).toBeGreaterThan(1)
})

test('a cache that keeps everything agrees, one that keeps little does not', async () => {
  const text = textPassages([...createDocument(model.tokenizer, { seed: 1, tokens: 300, facts: 4 }).tokens], {
    ...{ contextTokens: 200, predictTokens: 40, passages: 1 },
  })
  const caches: Partial<CacheOptions>[] = [
    { policy: 'window', window: 400 },
    { policy: 'random', window: 20 },
  ]
  const { groups } = await compareCaches(model, { passages: text, reference: { policy: 'full' }, groups: [caches] })
  const [all, little] = groups[0]!
  expect(all).toMatchObject({ positions: 40, topAgreement: 1, questions: 0 })
  expect(all!.meanKl).toBeLessThan(1e-6)
  expect(little!.topAgreement).toBeLessThan(0.9)
  expect(little!.meanKl).toBeGreaterThan(0.1)
})

test('rows say what was removed and how that went', async () => {
  const seen: number[] = []
  const options = { passages, policies: ['linear:model', 'adakv(keydiff)'], shares: [0.25, 0.9] }
  let total = 0
  const result = await evalPolicies(model, {
    ...options,
    onProgress: (tokens, all) => {
      seen.push(tokens)
      total = all
    },
  })
  const length = Math.max(...passages.map(({ context }) => context.length))
  const windows = [Math.round(0.75 * length), Math.round(0.1 * length)]
  expect(result.rows.map(({ policy, kind, share, window }) => [policy, kind, share, window])).toEqual([
    ['linear:model', 'static', 0.25, windows[0]],
    ['linear:model', 'static', 0.9, windows[1]],
    ['adakv(keydiff)', 'rescoring', 0.25, windows[0]],
    ['adakv(keydiff)', 'rescoring', 0.9, windows[1]],
  ])
  for (const { recall, correct, questions } of result.rows) expect(recall).toBe(correct / questions)
  expect(result.rows[1]!.kvBytes).toBeLessThan(result.rows[0]!.kvBytes)
  expect([...seen].sort((a, b) => a - b)).toEqual(seen)
  expect(seen.at(-1)).toBe(total)
  expect(total).toBe(
    tokensToRead({
      passages,
      groups: [
        [{}, {}],
        [{}, {}],
      ],
    }),
  )
})

test('sinks and recent tokens are those of all policies, as far as they fit', async () => {
  const made: Partial<CacheOptions>[] = []
  const watched: CausalLM = Object.assign(Object.create(model), {
    createCache: (options: Partial<CacheOptions>) => {
      made.push(options)
      return model.createCache(options)
    },
    forward: (batch: Parameters<CausalLM['forward']>[0]) => model.forward(batch),
    prefill: (...args: Parameters<CausalLM['prefill']>) => model.prefill(...args),
    vocabSize: model.vocabSize,
  })
  const one = [{ ...passages[0]!, continuations: passages[0]!.continuations.slice(0, 1) }]
  await evalPolicies(watched, {
    passages: one,
    policies: ['linear:key-norm'],
    shares: [0.5, 0.99],
    sinks: 2,
    recent: 50,
  })
  const [, half, little] = made
  expect(half).toMatchObject({ policy: 'linear', importance: 'key-norm', sinks: 2, recent: 50 })
  expect(little).toMatchObject({ window: 4, sinks: 2, recent: 1 })
})

test('the default is every policy that removes something, linear by each importance', () => {
  const names = allPolicies(model)
  expect(names).toEqual(expect.arrayContaining(['linear:model', 'linear:value-norm', 'h2o', 'adakv', 'window']))
  expect(names).not.toContain('full')
  expect(names).not.toContain('linear')
  expect(
    allPolicies({ describe: () => model.describe(), shape: { ...model.shape, hasImportance: false } }),
  ).not.toContain('linear:model')
})

test('unknown names, shares outside and an interrupt are refused', async () => {
  const evaluate = (options: object) => evalPolicies(model, { passages, ...options })
  await expect(evaluate({ policies: ['snapk'] })).rejects.toThrow('did you mean "snapkv"')
  await expect(evaluate({ policies: ['linear:values'] })).rejects.toThrow('importance')
  await expect(evaluate({ policies: ['full'] })).rejects.toThrow('remove something')
  await expect(evaluate({ shares: [1] })).rejects.toThrow('shares')
  await expect(evaluate({ signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'aborted' })
})
