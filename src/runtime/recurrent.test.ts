import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { CacheOptions } from '../cache/contract.ts'
import { recurrentAttention } from '../onnx/testing/published/recurrent.ts'
import { plainDecoder } from '../onnx/testing/published/scaffold.ts'
import { createCustom } from '../onnx/testing/published/styles.ts'
import type { CausalLM, LoadOptions } from './contract.ts'
import { loadModel } from './open-model.ts'
import { batchDeviation, cutLogits, deviation, tokensOf, uncutLogits, writeFolder } from './testing/published-folder.ts'

const prompt = 21
const tokens = tokensOf(prompt + 64)
const options: LoadOptions = { threads: 1, chunkSize: 16 }

let root = ''
let folder = ''
let file = ''
let here: CausalLM
let there: CausalLM
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'kvasir-recurrent-'))
  const model = createCustom((w) => plainDecoder(w, recurrentAttention(w, [1])), { layers: 3 })
  ;({ folder, file } = await writeFolder(root, model))
  here = await loadModel(folder, { ...options, worker: false })
  there = await loadModel(folder, options)
})
afterAll(async () => {
  await here.dispose()
  await there.dispose()
  await rm(root, { recursive: true })
})

async function logitsAfter(model: CausalLM, cache: ReturnType<CausalLM['createCache']>, text: readonly number[]) {
  return (await model.forward([{ cache, tokens: text }])).data as Float32Array
}

describe('a decoder with recurrent layers', () => {
  it('gives the logits of the uncut graph, token by token', async () => {
    expect(here.describe().states!.map(({ name }) => name)).toEqual(
      [0, 2].flatMap((layer) => [`past_conv.${layer}`, `past_ssm.${layer}`]),
    )
    const expected = await uncutLogits(file, tokens, prompt)
    expect(deviation(await cutLogits(here, tokens, prompt), expected)).toBeLessThanOrEqual(1e-4)
    expect(deviation(await cutLogits(here, tokens, 1), expected)).toBeLessThanOrEqual(1e-4)
  })

  it('reads many sequences at once as it reads each alone', async () => {
    expect(await batchDeviation(here, [5, 1, 40, 17])).toBeLessThanOrEqual(1e-5)
  })
})

describe('states in a file', () => {
  const choices: readonly [string, Partial<CacheOptions>][] = [
    ['all tokens', {}],
    ['a window, in f16', { policy: 'window', window: 16, kvDtype: 'f16' }],
  ]

  it.each(choices)('go on as though nothing had been: %s', async (name, choice) => {
    for (const [where, model] of Object.entries({ here, there })) {
      const cache = model.createCache(choice)
      await model.prefill(cache, tokens.slice(0, 40))
      const path = join(root, `${where} ${name}`)
      await model.saveCache(cache, path)
      const restored = await model.restoreCache(path, choice)
      expect(restored.getCacheInfo()).toEqual(cache.getCacheInfo())
      for (const step of [tokens.slice(40, 43), [7], [9]]) {
        expect(await logitsAfter(model, restored, step)).toEqual(await logitsAfter(model, cache, step))
      }
    }
  })

  it('go from one thread to another', async () => {
    const cache = there.createCache()
    await there.prefill(cache, tokens.slice(0, 40))
    const path = join(root, 'crossing')
    await there.saveCache(cache, path)
    const next = await logitsAfter(here, await here.restoreCache(path), [7])
    expect(next).toEqual(await logitsAfter(there, cache, [7]))
  })
})

describe('prompts that begin alike', () => {
  // What stays by snapkv depends on chunks of 16 tokens, so that only states where one ends are kept.
  it.each([
    ['full', 64],
    ['window', 64],
    ['snapkv', 48],
  ] as const)('share states, too: %s', async (policy, reused) => {
    const bounds = policy === 'full' ? {} : { window: 24 }
    const shared = { blockTokens: 8, checkpointTokens: 24 }
    const model = await loadModel(folder, { ...options, worker: false, policy, ...bounds, prefixCache: shared })
    const read = (given: { readonly prefixCache?: false } = {}) =>
      model.generate(tokens.slice(0, 70), { maxNewTokens: 1, logprobs: 5, ...given })
    const expected = await read({ prefixCache: false })
    const [first, second] = [await read(), await read()]
    expect([first.reusedTokens, second.reusedTokens]).toEqual([0, reused])
    for (const { logprobs } of [first, second]) {
      for (const [i, { logprob, token }] of logprobs![0]!.top.entries()) {
        expect(token).toBe(expected.logprobs![0]!.top[i]!.token)
        expect(logprob).toBeCloseTo(expected.logprobs![0]!.top[i]!.logprob, 4)
      }
    }
    await model.dispose()
  })
})
