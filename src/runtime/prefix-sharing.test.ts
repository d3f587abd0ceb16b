/** Whole models with a cache of prefixes: the same tokens and logits, less to read. */
import { spawn } from 'node:child_process'
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { CacheOptions } from '../cache/contract.ts'
import { startRedis, withoutRedis } from '../cache/tiers/testing/redis-server.ts'
import { writeDogeCheckpoint } from '../onnx/testing/doge-checkpoint.ts'
import { hybridAttention } from '../onnx/testing/published/hybrid.ts'
import { plainDecoder } from '../onnx/testing/published/scaffold.ts'
import { createCustom } from '../onnx/testing/published/styles.ts'
import type { CausalLM, LoadOptions } from './contract.ts'
import { loadModel as loadHere } from './load-model.ts'
import { loadModel } from './open-model.ts'
import { tokensOf, writeFolder } from './testing/published-folder.ts'

let scratch = ''
let model = ''
const opened: CausalLM[] = []
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'kvasir-prefixes-'))
  model = (await writeDogeCheckpoint()).folder
})
afterAll(async () => {
  for (const each of opened) await each.dispose()
  for (const folder of [scratch, model]) await rm(folder, { recursive: true })
})

const text = Array.from({ length: 200 }, (_, i) => (i * 89 + 7) % 256)
const written = { maxNewTokens: 8, ignoreEos: true, logprobs: 3 } as const

async function load(options: LoadOptions): Promise<CausalLM> {
  const loaded = await loadHere(model, { threads: 1, chunkSize: 32, ...options })
  opened.push(loaded)
  return loaded
}

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
    const { folder } = await writeFolder(scratch, graph)
    const prompt = tokensOf(100)
    const settings = { threads: 1, chunkSize: 16, policy, ...(policy !== 'full' && { window: 24 }) }
    const plain = await loadHere(folder, settings)
    const sharing = await loadHere(folder, { ...settings, prefixCache: { blockTokens: 16, checkpointTokens: 32 } })
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

describe('what is shared', () => {
  const prefixCache = { blockTokens: 32 }

  it('is what was asked for: by salt, by request, and not at all', async () => {
    const sharing = await load({ policy: 'full', prefixCache: { ...prefixCache, salt: 'a' } })
    const reused = async (choice?: false | { salt?: string }): Promise<number> =>
      (await sharing.generate(text, { ...written, ...(choice !== undefined && { prefixCache: choice }) })).reusedTokens
    expect(await reused(false)).toBe(0)
    expect(await reused()).toBe(0)
    expect(await reused()).toBe(192)
    expect(await reused({ salt: 'b' })).toBe(0)
    expect(await reused({ salt: 'b' })).toBe(192)
    expect(await reused({ salt: 'a' })).toBe(192)
    expect(await reused(false)).toBe(0)
    await expect(reused({ salt: 5 as unknown as string })).rejects.toThrow('expected a text for salt, got 5')
  })

  it('goes into caches of the caller, by generate and by prefill, when they are empty', async () => {
    const sharing = await load({ policy: 'full', prefixCache })
    const cache = sharing.createCache()
    await sharing.prefill(cache, text)
    const read: number[] = []
    const second = sharing.createCache()
    await sharing.prefill(second, text, { onPrefill: (done) => read.push(done) })
    expect(read).toEqual([200])
    second.reset()
    expect((await sharing.generate(text, { ...written, cache: second })).reusedTokens).toBe(192)
    expect((await sharing.generate([1, 2], { ...written, cache: second })).reusedTokens).toBe(0)
    expect(Array.from(second.tokens ?? []).slice(0, 200)).toEqual(text)
  })

  it('serves conversations: a second one reads what is new alone', async () => {
    const folder = join(scratch, 'chat')
    await cp(join(import.meta.dirname, '../../models/kvasir-tiny'), folder, { recursive: true })
    const chatTemplate = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    await writeFile(join(folder, 'chat_template.jinja'), chatTemplate)
    const sharing = await loadHere(folder, { threads: 1, policy: 'full', prefixCache: { blockTokens: 4 } })
    opened.push(sharing)
    const options = { maxNewTokens: 4, ignoreEos: true }
    const system = 'You are a very patient assistant, and you like long words and long walks.'
    const turn = async (question: string) => {
      const conversation = sharing.startConversation({ system, ...options })
      const result = await conversation.send(question)
      conversation.dispose()
      return result
    }
    expect((await turn('What is it?')).reusedTokens).toBe(0)
    const second = await turn('Where is it?')
    expect(second.reusedTokens).toBeGreaterThan(10)
  })

  it('is counted and salted where a conversation reads its stable part by itself', async () => {
    const folder = join(scratch, 'chat of a window')
    await cp(join(import.meta.dirname, '../../models/kvasir-tiny'), folder, { recursive: true })
    const chatTemplate = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    await writeFile(join(folder, 'chat_template.jinja'), chatTemplate)
    const options = { threads: 1, policy: 'linear', window: 32, prefixCache: { blockTokens: 4 } } as const
    const sharing = await loadHere(folder, options)
    opened.push(sharing)
    const system = 'You are a very patient assistant, and you like long words and long walks.'
    const turn = async (prefixCache?: false | { salt: string }) => {
      const conversation = sharing.startConversation({ system, maxNewTokens: 4, ignoreEos: true })
      const result = await conversation.send('What is it?', prefixCache === undefined ? {} : { prefixCache })
      conversation.dispose()
      return result
    }
    const first = await turn({ salt: 'a' })
    expect(first.reusedTokens).toBe(0)
    const second = await turn({ salt: 'a' })
    expect(second.tokens).toEqual(first.tokens)
    expect(second.reusedTokens).toBeGreaterThan(10)
    expect(second.reusedTokens).toBeLessThan(second.promptTokens)
    expect((await turn({ salt: 'b' })).reusedTokens).toBe(0)
    expect((await turn(false)).reusedTokens).toBe(0)
  })

  it('is counted, in the thread of a model too', async () => {
    const threaded = await loadModel(model, { threads: 1, policy: 'full', storage: 'paged', prefixCache })
    for (const salt of ['a', 'a', 'b']) await threaded.generate(text, { ...written, prefixCache: { salt } })
    const cache = threaded.createCache()
    expect(await threaded.prefill(cache, text)).toEqual({ reusedTokens: 0 })
    cache.reset()
    expect(await threaded.prefill(cache, text)).toEqual({ reusedTokens: 192 })
    const stats = await threaded.prefixStats()
    expect(stats).toMatchObject({ hits: 2, misses: 3, askedTokens: 1000, reusedTokens: 384, refused: 0 })
    expect(stats?.pages).toMatchObject({ blocks: 18, evicted: 0, bytes: expect.any(Number) })
    expect(stats?.tiers).toMatchObject([{ name: 'ram', entries: 0 }])
    await threaded.checkCache(cache)
    await threaded.dispose()
    const without = await loadHere(model, { threads: 1 })
    expect(await without.prefixStats()).toBeUndefined()
    await without.dispose()
  })

  it('crosses to the thread of a model, and to another process through the disk', async () => {
    const disk = join(scratch, 'disk')
    const options = { threads: 1, policy: 'full' as const, prefixCache: { ...prefixCache, ram: 0, disk } }
    const threaded = await loadModel(model, options)
    const alone = await threaded.generate(text, written)
    expect(alone.reusedTokens).toBe(0)
    await threaded.dispose()
    expect(await generateElsewhere(options)).toEqual({ reusedTokens: 192, tokens: alone.tokens })
  })

  it.skipIf(withoutRedis)('crosses to another process through Redis', async () => {
    const server = await startRedis()
    const redis = { url: server.url, timeoutMs: 20_000 }
    const options = {
      threads: 1,
      policy: 'linear' as const,
      window: 40,
      prefixCache: { ...prefixCache, ram: 0, redis },
    }
    const first = await loadHere(model, options)
    const alone = await first.generate(text, written)
    await first.dispose()
    expect(await generateElsewhere(options)).toEqual({ reusedTokens: 192, tokens: alone.tokens })
    await server.stop()
    const third = await load({
      ...options,
      prefixCache: { ...prefixCache, ram: 0, redis: { ...redis, timeoutMs: 50 } },
    })
    const without = await third.generate(text, written)
    expect([without.reusedTokens, without.tokens]).toEqual([0, alone.tokens])
  })

  it('is refused with wrong options, naming them', async () => {
    const wrong: [LoadOptions['prefixCache'], string][] = [
      [{ ram: 'much' }, 'expected a number of bytes as in 64MiB for ram, got "much"'],
      [{ blockTokens: 0 }, 'expected an integer in 1..1048576 for blockTokens, got 0'],
      [{ checkpointTokens: 100 }, 'expected a multiple of blockTokens = 64 for checkpointTokens, got 100'],
      [{ dsk: 'x' } as never, 'did you mean "disk"'],
      [{ redis: 'http://x' }, 'expected'],
      [true as never, 'expected options for prefixCache, got true'],
    ]
    for (const [prefixes, message] of wrong) {
      await expect(loadHere(model, { prefixCache: prefixes as object })).rejects.toThrow(message)
    }
  })
})

/** The same text in another process. */
async function generateElsewhere(options: LoadOptions): Promise<unknown> {
  const script = `
    const { loadModel } = await import(${JSON.stringify(new URL('./load-model.ts', import.meta.url).href)})
    const model = await loadModel(${JSON.stringify(model)}, ${JSON.stringify(options)})
    const { reusedTokens, tokens } = await model.generate(${JSON.stringify(text)}, ${JSON.stringify(written)})
    process.send({ reusedTokens, tokens })
    await model.dispose()
    process.disconnect()`
  const args = ['--import', 'tsx', '--input-type=module', '--eval', script]
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  return await new Promise((resolve, reject) => {
    child.once('message', resolve)
    child.once('exit', (code) => reject(new Error(`ended with ${code}`)))
  })
}
