import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { CacheShape, NewTokens } from '../cache/contract.ts'
import { createRandom, normal } from '../kernels/cases.ts'
import { countFeatures } from '../policies/scorer/features.ts'
import { createScorer, type ScorerLayers } from '../policies/scorer/scorer.ts'
import { loadModel } from './load-model.ts'
import { loadModel as openModel } from './open-model.ts'
import { readScorer, scorerFileName, writeScorer } from './scorer-file.ts'

let folder = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kvasir-scorer-'))
})
afterAll(() => rm(folder, { recursive: true }))

const identity = 'a'.repeat(32)
const layer = { numHeads: 4, numKvHeads: 2, headDim: 6, valueDim: 5 }
const shape: CacheShape = { numLayers: 2, layers: [{ ...layer, window: 9 }, layer], hasImportance: false }
const model = { shape, identity }

function scorerOf(layers: CacheShape['layers'], hidden: number, pairs = 2): ScorerLayers {
  return layers.map((one) => {
    if (one.window !== undefined) return undefined
    const rotation = { pairs, isInterleaved: true }
    const random = createRandom(4)
    const units = one.numKvHeads * Math.max(1, hidden)
    const weight = normal(random, units * countFeatures(one, rotation))
    const numbers = { weight, bias: normal(random, units), output: normal(random, one.numKvHeads * hidden) }
    return { rotation, hidden, ...numbers, slope: normal(random, one.numKvHeads) }
  })
}

function scoresOf(score: ReturnType<typeof createScorer>): Float32Array {
  const random = createRandom(9)
  const tokens: NewTokens = {
    ...layer,
    layer: 1,
    numTokens: 3,
    firstPosition: 7,
    key: normal(random, 36),
    value: normal(random, 30),
  }
  const scores = new Float32Array(6)
  score(tokens, scores)
  return scores
}

test.each([0, 3])('a scorer of %i hidden units comes back from its file as it was', async (hidden) => {
  const file = join(folder, `${hidden}.safetensors`.padStart(255, '0')) // as long as a name can be
  const layers = scorerOf(shape.layers, hidden)
  await writeScorer(file, { layers, recent: 12 }, model)
  const score = readScorer(file, model)
  expect(score.recent).toBe(12)
  expect(scoresOf(score)).toEqual(scoresOf(createScorer(layers, shape)))
})

test('files that are no scorer of this model are refused with the reason', async () => {
  const file = join(folder, 'scorer.safetensors')
  await writeScorer(file, { layers: scorerOf(shape.layers, 0), recent: 0 }, model)
  const bytes = await readFile(file)
  const read =
    (other = {}) =>
    () =>
      readScorer(file, { ...model, ...other })
  expect(read({ identity: 'b'.repeat(32) })).toThrow('expected a scorer of this model, got one of other weights')
  const wider = { ...shape, layers: [shape.layers[0]!, { ...layer, valueDim: 6 }] }
  expect(read({ shape: wider })).toThrow(/scorer\.safetensors: expected \d+ numbers of the weight of layer 1/)
  const change = async (from: string, to: string) => {
    const text = bytes.toString('latin1')
    expect(text).toContain(from)
    await writeFile(file, Buffer.from(text.replace(from, to), 'latin1'))
  }
  await change('kvasir-scorer', 'kvasir-scored')
  expect(read()).toThrow('expected a scorer, got format kvasir-scored')
  await change('"version":"1"', '"version":"9"')
  expect(read()).toThrow('expected version 1, got 9')
  await change('"features":"1"', '"features":"0"')
  expect(read()).toThrow('expected features 1, got 0')
  await change('"recent":"0"', '"recent":"x"')
  expect(read()).toThrow('expected a count of recent tokens, got x')
  await change('layers.1.bias', 'layers.1.bird')
  expect(read()).toThrow('expected a tensor layers.1.bias')
  await change('pairs', 'pears')
  expect(read()).toThrow('expected a list of layers')
  const end = bytes.length
  await writeFile(file, Buffer.concat([bytes.subarray(0, end - 4), Buffer.of(0, 0, 0xc0, 0x7f)]))
  expect(read()).toThrow('expected finite numbers of the slope of layer 1')
  await writeFile(file, bytes.subarray(0, end - 1))
  expect(read()).toThrow('[kvasir:safetensors]')
  await rm(file)
  expect(read()).toThrow('kvasir train-scorer makes one')
})

test('a model ranks by the scorer beside it, in its thread too, and refuses that of other weights', async () => {
  const home = join(folder, 'model')
  await cp(fileURLToPath(new URL('../../models/kvasir-tiny', import.meta.url)), home, { recursive: true })
  await rm(join(home, scorerFileName), { force: true })
  const options = { policy: 'linear', window: 24, worker: false, threads: 1 } as const
  const plain = await loadModel(home, { policy: 'linear', window: 24, threads: 1 })
  expect(plain.describe().scorer).toBeUndefined()
  expect(() => plain.createCache({ importance: 'learned' })).toThrow('kvasir train-scorer makes one')
  await expect(loadModel(home, { importance: 'learned' })).rejects.toMatchObject({ code: 'not-found' })
  const { weights: own } = plain.describe()
  const scorer = { layers: scorerOf(plain.shape.layers, 0, 32), recent: 6 }
  const file = join(folder, 'elsewhere.safetensors')
  await writeScorer(file, scorer, { shape: plain.shape, identity: own })
  await writeScorer(join(home, scorerFileName), scorer, { shape: plain.shape, identity: own })
  const tokens = plain.tokenizer.encode('Mara put the brass key in the blue drawer. The sky was grey. '.repeat(6))
  const kept = async (importance: 'model' | 'learned' | { scorer: string }) => {
    const cache = plain.createCache({ importance })
    await plain.prefill(cache, tokens)
    return [0, 1, 2, 3].map((index) => cache.layer(index).positions(1))
  }
  const learned = await kept('learned')
  expect(learned).toEqual(await kept({ scorer: file }))
  expect(learned).not.toEqual(await kept('model'))
  for (const positions of learned) expect(positions.slice(-6)).toEqual([6, 5, 4, 3, 2, 1].map((n) => tokens.length - n))
  const threaded = await openModel(home, { ...options, worker: true, importance: 'learned' })
  expect(threaded.describe()).toMatchObject({ weights: own, scorer: join(home, scorerFileName) })
  const [here, there] = [plain.createCache({ importance: 'learned' }), threaded.createCache()]
  const last = (one: typeof plain, cache: typeof here) => one.forward([{ cache, tokens }]).then(({ data }) => data)
  expect(await last(threaded, there)).toEqual(await last(plain, here))
  const saved = join(folder, 'saved.kv')
  await plain.saveCache(here, saved)
  const next = async (cache: typeof here) => {
    const { data } = await plain.forward([{ cache, tokens: tokens.slice(0, 9) }])
    return [data, [0, 1, 2, 3].map((index) => cache.layer(index).positions(0))]
  }
  const restored = await plain.restoreCache(saved, { importance: { scorer: file } })
  expect(await next(restored)).toEqual(await next(here))
  const own2 = { layers: scorerOf(plain.shape.layers, 2, 32), recent: 6 }
  await writeScorer(file, own2, { shape: plain.shape, identity: own })
  const again = await loadModel(home, { policy: 'linear', window: 24, threads: 1, importance: { scorer: file } })
  await expect(again.restoreCache(saved)).rejects.toThrow('expected a cache with importance of the scorer')
  expect((await again.restoreCache(saved, { importance: 'learned' })).seenTokens).toBe(tokens.length)
  await expect(again.restoreCache(saved, { importance: 'model' })).rejects.toThrow('importance "model"')
  await again.dispose()
  expect(() => plain.createCache({ importance: null as unknown as 'model' })).toThrow('[kvasir:cache]')
  const weights = await readFile(join(home, 'model.safetensors'))
  weights[weights.length - 100]! ^= 1
  await writeFile(join(home, 'model.safetensors'), weights)
  await expect(loadModel(home, { importance: 'learned' })).rejects.toThrow('got one of other weights')
  await Promise.all([plain.dispose(), threaded.dispose()])
})
