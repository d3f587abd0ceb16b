/**
 * A pool that runs out anywhere in a step of a model, of one sequence or of two: the step is refused before a layer has
 * taken a token in, and gives what it gives elsewhere as soon as others have gone.
 */
import { rm } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { CacheOptions, KvCache, KvPool } from '../cache/contract.ts'
import { openKernels } from '../kernels/index.ts'
import { writeDogeCheckpoint } from '../onnx/testing/doge-checkpoint.ts'
import { createKvPool } from '../policies/index.ts'
import { isKvasirError } from '../tensor/error.ts'
import type { CausalLM } from './contract.ts'
import { loadModel } from './load-model.ts'

const kernels = openKernels({ threads: 1 })
const numLayers = 4
const text = Array.from({ length: 60 }, (_, i) => (i * 89 + 7) % 256)

let folder = ''
let model: CausalLM
beforeAll(async () => {
  folder = (await writeDogeCheckpoint({ layers: numLayers })).folder
  model = await loadModel(folder, { threads: 1, chunkSize: 64 })
})
afterAll(async () => {
  await model.dispose()
  await rm(folder, { recursive: true })
})

interface Case {
  readonly options: CacheOptions
  readonly pageSize: number
  /** Tokens that the sequence has, and those of the step. */
  readonly before: number
  readonly next: number
  /** Another cache holds the same pages. */
  readonly isForked?: boolean
}

const cases: Case[] = [
  { options: { policy: 'full' }, pageSize: 4, before: 7, next: 12 },
  { options: { policy: 'full', kvDtype: 'int8', residual: 3 }, pageSize: 2, before: 6, next: 1 },
  { options: { policy: 'full' }, pageSize: 4, before: 7, next: 1, isForked: true },
  { options: { policy: 'linear', window: 15, kvDtype: 'int4', residual: 5 }, pageSize: 2, before: 9, next: 10 },
  { options: { policy: 'linear', window: 8 }, pageSize: 2, before: 20, next: 1, isForked: true },
  { options: { policy: 'streaming', window: 17, positions: 'rank' }, pageSize: 3, before: 8, next: 9, isForked: true },
  { options: { policy: 'h2o', window: 14, interval: 5 }, pageSize: 2, before: 14, next: 8 },
  { options: { policy: 'adakv(linear)', window: 12 }, pageSize: 2, before: 20, next: 1, isForked: true },
  { options: { policy: 'adakv(h2o)', window: 12, recall: 1 }, pageSize: 2, before: 6, next: 20 },
]

/** What a user can see of a cache, layer by layer. */
const stateOf = (cache: KvCache) => ({
  seen: Array.from({ length: numLayers }, (_, layer) => cache.layer(layer).info()),
  kept: cache.explain!().map(({ heads, evicted }) => ({ heads, evicted })),
  tokens: Array.from(cache.tokens!),
})

const feed = async (cache: KvCache, tokens: readonly number[]): Promise<ArrayLike<number>> => {
  return (await model.forward([{ cache, tokens, logitsOf: tokens.map((_, i) => i) }])).data as Float32Array
}

/** Reads the beginning of the text, and something else into another sequence; the first may have a fork. */
async function start({ options, pageSize, before, isForked }: Case, kvBudget?: number) {
  const { kvDtype, residual } = options
  const pool = createKvPool(kernels, { kvDtype, residual, pageSize, kvBudget })
  const cache = model.createCache({ ...options, pool })
  await feed(cache, text.slice(0, before))
  const forks = isForked ? [cache.fork()] : []
  const other = model.createCache({ policy: 'full', kvDtype, residual, pool })
  await feed(other, text.slice(20, 44))
  return { pool, cache, others: [other, ...forks] }
}

async function refusedUntilOthersGo(pool: KvPool, cache: KvCache, others: KvCache[], step: () => Promise<unknown>) {
  const [state, usedBytes] = [stateOf(cache), pool.usedBytes]
  const error = await step().catch((cause: unknown) => cause)
  if (!(error instanceof Error)) return { result: error, isRefused: false }
  expect(isKvasirError(error) && error.code).toBe('out-of-memory')
  expect(error.message).toMatch(/expected room for pages of \d+ bytes, got \d+ free of \d+: the pool is used up/)
  expect(stateOf(cache)).toEqual(state)
  expect(pool.usedBytes).toBe(usedBytes)
  await model.checkCache(cache)
  for (const other of others) other.dispose()
  pool.checkIntegrity()
  return { result: await step(), isRefused: true }
}

describe('a step that a pool has no pages for', () => {
  it.each(cases)('is refused as a whole, wherever they end: $options, $before and $next tokens', async (test) => {
    const tokens = text.slice(test.before, test.before + test.next)
    const ample = await start(test)
    const { usedBytes } = ample.pool
    const expected = await feed(ample.cache, tokens)
    const state = stateOf(ample.cache)
    const grain = (test.options.kvDtype ? 16 : 64) * test.pageSize
    let numRefused = 0
    for (let more = 0; ; more++) {
      const { pool, cache, others } = await start(test, usedBytes + grain * more)
      const { result, isRefused } = await refusedUntilOthersGo(pool, cache, others, () => feed(cache, tokens))
      expect(result).toEqual(expected)
      expect(stateOf(cache)).toEqual(state)
      pool.checkIntegrity()
      cache.dispose()
      if (!isRefused) break
      numRefused++
    }
    expect(numRefused).toBeGreaterThan(numLayers)
  })

  it('leaves all sequences of the step as they were, and those of others their pages', async () => {
    const choice = cases[0] as Case
    const ample = await start(choice)
    const expected = await feed(ample.others[0] as KvCache, [4, 5, 6, 7, 8, 9])
    // Room for the three tokens of the first, and in some layers for those of the second.
    const page = 4 * 2 * 8 * 4
    const { usedBytes } = (await start(choice)).pool
    const limited = await start(choice, usedBytes + 2 * (numLayers + 1) * page)
    const third = limited.others[0] as KvCache
    const states = [stateOf(limited.cache), stateOf(third)]
    const step = () =>
      model.forward([
        { cache: limited.cache, tokens: [1, 2, 3] },
        { cache: third, tokens: [4, 5, 6, 7, 8, 9] },
      ])
    await expect(step()).rejects.toThrow('the pool is used up')
    expect([stateOf(limited.cache), stateOf(third)]).toEqual(states)
    limited.cache.reset()
    await feed(limited.cache, [1])
    limited.pool.checkIntegrity()
    expect(await feed(third, [4, 5, 6, 7, 8, 9])).toEqual(expected)
  })
})
