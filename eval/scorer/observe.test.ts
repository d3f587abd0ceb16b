import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openKernels } from '../../src/kernels/index.ts'
import { type CausalLM, loadModel } from '../../src/runtime/index.ts'
import { storyPassages } from '../passages.ts'
import { type HeadView, observe, sequenceOf } from './observe.ts'
import { trainScorer } from './train.ts'
import { WeighingCache } from './weighing-cache.ts'

const folder = fileURLToPath(new URL('../../models/kvasir-tiny', import.meta.url))
const kernels = openKernels({ threads: 1 })

let model: CausalLM
beforeAll(async () => {
  model = await loadModel(folder, { worker: false, threads: 1 })
})
afterAll(() => model.dispose())

const stories = (contextTokens: number, count: number, seed = 11) => [
  ...storyPassages(model.tokenizer, { contextTokens, questions: 8 * count, questionsPerDocument: 8, seed }),
]

test('the cache that writes down attention gives the logits of a full one', async () => {
  const tokens = [...sequenceOf(stories(200, 1)[0]!)]
  const [weighing, full] = [
    new WeighingCache(kernels, model.shape, tokens.length),
    model.createCache({ policy: 'full', window: undefined }),
  ]
  const logitsOf = [50, tokens.length - 1]
  const [one, other] = [
    await model.forward([{ cache: weighing, tokens, logitsOf }]),
    await model.forward([{ cache: full, tokens, logitsOf }]),
  ]
  const worst = (one.data as Float32Array).reduce(
    (most, x, i) => Math.max(most, Math.abs(x - (other.data as Float32Array)[i]!)),
    0,
  )
  expect(worst).toBeLessThan(1e-3)
  full.dispose()
})

test('each query gives one whole of attention to tokens up to its own', async () => {
  const passage = stories(300, 1)[0]!
  const views: HeadView[] = []
  await observe(model, kernels, passage, (view) => views.push(view))
  expect(views.map(({ layer, head }) => [layer, head])).toEqual(
    [0, 1, 2, 3].flatMap((layer) => [0, 1].map((head) => [layer, head])),
  )
  for (const { stretches, group, numTokens } of views) {
    expect(stretches.reduce((sum, { count }) => sum + count, 0)).toBe(numTokens)
    for (const { first, count, masses } of stretches) {
      expect(masses.reduce((sum, mass) => sum + mass, 0)).toBeCloseTo(count * group, 2)
      expect(masses.slice(first + count).every((mass) => mass === 0)).toBe(true)
    }
  }
})

test('a scorer learns more from stories than scores that need no training know', { timeout: 300_000 }, async () => {
  const passages = stories(700, 4)
  const seen: number[] = []
  const options = { training: passages.slice(0, 3), heldOut: passages.slice(3), hidden: 0, seed: 1, shares: [0.5, 0.9] }
  let total = 0
  const { judgement, layers, samples } = await trainScorer(model, kernels, {
    ...options,
    onProgress: (done, all) => {
      seen.push(done)
      total = all
    },
  })
  expect([...seen].sort((a, b) => a - b)).toEqual(seen)
  expect(seen.at(-1)).toBe(total)
  expect(layers.map((layer) => layer?.weight.length)).toEqual(Array(4).fill(2 * 101))
  expect(samples).toBeGreaterThan(1500)
  const kept = new Map(judgement.scores.map(({ score, keptMass }) => [score, keptMass]))
  for (const other of ['random', 'value-norm', 'key-norm']) {
    for (const s of [0, 1]) expect(kept.get('learned')![s]!, other).toBeGreaterThan(kept.get(other)![s]! + 0.05)
  }
  for (const name of kept.keys())
    for (const s of [0, 1]) expect(kept.get('oracle')![s]!).toBeGreaterThan(kept.get(name)![s]! - 1e-6)
  expect(judgement.heads).toHaveLength(8)
})
