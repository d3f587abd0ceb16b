/** What whole models with a cache of prefixes share, and with whom: less to read. */
import { spawn } from 'node:child_process'
import { cp, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { startRedis, withoutRedis } from '../cache/tiers/testing/redis-server.ts'
import type { LoadOptions } from './contract.ts'
import { loadModel as loadHere } from './load-model.ts'
import { loadModel } from './open-model.ts'
import { text, usePrefixModels, written } from './testing/prefix-models.ts'

const { load, opened, model, scratch } = usePrefixModels()

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
    const folder = join(scratch(), 'chat')
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
    const folder = join(scratch(), 'chat of a window')
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
    const threaded = await loadModel(model(), { threads: 1, policy: 'full', storage: 'paged', prefixCache })
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
    const without = await loadHere(model(), { threads: 1 })
    expect(await without.prefixStats()).toBeUndefined()
    await without.dispose()
  })

  it('crosses to the thread of a model, and to another process through the disk', async () => {
    const disk = join(scratch(), 'disk')
    const options = { threads: 1, policy: 'full' as const, prefixCache: { ...prefixCache, ram: 0, disk } }
    const threaded = await loadModel(model(), options)
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
    const first = await loadHere(model(), options)
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
      await expect(loadHere(model(), { prefixCache: prefixes as object })).rejects.toThrow(message)
    }
  })
})

/** The same text in another process. */
async function generateElsewhere(options: LoadOptions): Promise<unknown> {
  const script = `
    const { loadModel } = await import(${JSON.stringify(new URL('./load-model.ts', import.meta.url).href)})
    const model = await loadModel(${JSON.stringify(model())}, ${JSON.stringify(options)})
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
