/** Whole models with a cache of prefixes: the same tokens and logits as without. */
import { describe, expect, it } from 'vitest'
import type { CacheOptions } from '../cache/contract.ts'
import { hybridAttention } from '../onnx/testing/published/hybrid.ts'
import { plainDecoder } from '../onnx/testing/published/scaffold.ts'
import { createCustom } from '../onnx/testing/published/styles.ts'
import type { CausalLM } from './contract.ts'
import { loadModel } from './load-model.ts'
import { text, usePrefixModels, written } from './testing/prefix-models.ts'
import { tokensOf, writeFolder } from './testing/published-folder.ts'

const { load, opened, scratch } = usePrefixModels()

const choices: readonly Partial<CacheOptions>[] = [
  { policy: 'full' },
  { policy: 'full', window: 20 },
  { policy: 'window', window: 40 },
  { policy: 'streaming', window: 40 },
  { policy: 'streaming', window: 40, positions: 'rank' },
  { policy: 'linear', window: 40, sinks: 2 },
  { policy: 'h2o', window: 40 },
  { policy: 'snapkv', window: 40 },
  { policy: 'adakv(keydiff)', window: 40 },
]

describe.each(choices)('%j', (choice) => {
  it.each(['contiguous', 'paged'] as const)('%s: reuse gives the bits of reading', async (storage) => {
    for (const kvDtype of ['f32', 'int8'] as const) {
      const options = { ...choice, storage, kvDtype }
      // Blocks as long as chunks: without reuse the same chunks are read.
      const prefixCache = { blockTokens: 32, checkpointTokens: 32 }
      const [plain, sharing] = [await load(options), await load({ ...options, prefixCache })]
      const alone = await plain.generate(text, written)
      const first = await sharing.generate(text, written)
      const second = await sharing.generate(text, written)
      const other = await sharing.generate([...text.slice(0, 100), ...text.slice(3, 80)], written)
      expect([alone, first, second, other].map(({ reusedTokens }) => reusedTokens)).toEqual([0, 0, 192, 96])
      for (const result of [first, second]) {
        expect(result.tokens).toEqual(alone.tokens)
        expect(result.logprobs).toEqual(alone.logprobs)
      }
      const unshared = await plain.generate([...text.slice(0, 100), ...text.slice(3, 80)], written)
      expect(other.logprobs).toEqual(unshared.logprobs)
    }
  })

  it('whatever blocks and checkpoints are, numbers differ by rounding at most, and not where chunks decide', async () => {
    const [plain, sharing] = [
      await load(choice),
      await load({ ...choice, prefixCache: { blockTokens: 8, checkpointTokens: 24 } }),
    ]
    const alone = await plain.generate(text, written)
    await sharing.generate([...text.slice(0, 150), 1], written)
    const result = await sharing.generate(text, written)
    const isRanked = sharing.createCache().dependsOnChunks === true
    expect(result.reusedTokens).toBe(isRanked ? 96 : 144)
    for (const [i, { logprob }] of (result.logprobs ?? []).entries()) {
      const difference = Math.abs(logprob - (alone.logprobs?.[i]?.logprob ?? Number.NaN))
      expect(difference).toBeLessThanOrEqual(isRanked ? 0 : 1e-4)
    }
    expect(result.tokens).toEqual(alone.tokens)
  })
})

describe('models whose graphs have states besides keys and values', () => {
  it.each(['full', 'window', 'h2o'] as const)('%s: share them with the rest, at the same places', async (policy) => {
    const graph = createCustom((w) => plainDecoder(w, hybridAttention(w, { attention: [1, 2] })), { layers: 4 })
    const { folder } = await writeFolder(scratch(), graph)
    const prompt = tokensOf(100)
    const settings = { threads: 1, chunkSize: 16, policy, ...(policy !== 'full' && { window: 24 }) }
    const plain = await loadModel(folder, settings)
    const sharing = await loadModel(folder, { ...settings, prefixCache: { blockTokens: 16, checkpointTokens: 32 } })
    opened.push(plain, sharing)
    const last = async (model: CausalLM, text: readonly number[]) => {
      const result = await model.generate(text, { ...written, maxNewTokens: 4 })
      return { reusedTokens: result.reusedTokens, tokens: result.tokens, logprobs: result.logprobs }
    }
    const alone = await last(plain, prompt)
    expect(await last(sharing, prompt)).toEqual({ ...alone, reusedTokens: 0 })
    // 100 tokens: whole states after 32, 64 and 96.
    expect(await last(sharing, prompt)).toEqual({ ...alone, reusedTokens: 96 })
    const other = [...prompt.slice(0, 70), ...prompt.slice(0, 20)]
    expect(await last(sharing, other)).toEqual({ ...(await last(plain, other)), reusedTokens: 64 })
  })
})
