/** A model in a thread of its own against the same model in this thread. */
import { describe, expect, it } from 'vitest'
import type { KvCache } from '../../cache/contract.ts'
import type { CausalLM, GenerateOptions, StreamEvent } from '../contract.ts'
import { collectEvents, prompt, usePair } from './testing/pair.ts'

let here: CausalLM
let there: CausalLM
usePair((pair) => {
  here = pair.here
  there = pair.there
})

/** Without what a clock says. */
function timeless(event: StreamEvent): unknown {
  return event.type === 'token' ? event : { ...event.result, prefillMs: 0, decodeMs: 0 }
}

describe('a model in a thread of its own', () => {
  it('knows of itself what the model in this thread knows', () => {
    for (const key of ['shape', 'vocabSize', 'cacheOptions', 'generationDefaults'] as const) {
      expect(there[key]).toEqual(here[key])
    }
    expect(there.describe()).toEqual(here.describe())
    expect(there.tokenizer.encode('Hi')).toEqual(here.tokenizer.encode('Hi'))
  })

  it('gives the same texts, events, tokens and logits', async () => {
    const all: GenerateOptions[] = [
      { maxNewTokens: 9, logprobs: 2 },
      { temperature: 5, seed: 3, n: 3, maxNewTokens: 9, ignoreEos: true },
      { promptLookupTokens: 4, maxNewTokens: 20, stop: 'x' },
      { numBeams: 3, n: 2, maxNewTokens: 5 },
      { responseFormat: { grammar: 'root ::= ("a" | "b")+' }, maxNewTokens: 5, temperature: 1, seed: 2 },
    ]
    for (const options of all) {
      const [a, b] = [await here.generate(prompt, options), await there.generate(prompt, options)]
      expect(timeless({ type: 'done', result: b })).toEqual(timeless({ type: 'done', result: a }))
      if (options.numBeams) continue
      expect((await collectEvents(there, options)).map(timeless)).toEqual(
        (await collectEvents(here, options)).map(timeless),
      )
    }
    const messages = [{ role: 'user', content: 'Hello' }]
    expect(await there.tokenize(messages)).toEqual(await here.tokenize(messages))
    const logits = async (model: CausalLM) => {
      const [first, second] = [model.createCache(), model.createCache({ policy: 'linear', window: 4 })]
      await model.prefill(second, prompt)
      return await model.forward([
        { cache: first, tokens: Int32Array.from(prompt), logitsOf: [3, 19] },
        { cache: second, tokens: [1, 2] },
      ])
    }
    const [a, b] = [await logits(here), await logits(there)]
    expect(b.dims).toEqual(a.dims)
    expect(b.data).toEqual(a.data)
  })

  it('keeps caches that can be forked, cut, reset and disposed of, and says where they stand', async () => {
    const follow = async (model: CausalLM) => {
      const infos: unknown[] = []
      const cache = model.createCache()
      const look = (which: KvCache) => infos.push(which.getCacheInfo(), which.truncate !== undefined)
      await model.prefill(cache, prompt)
      look(cache)
      const fork = cache.fork()
      const { tokens } = await model.generate([1, 2, 3], { cache: fork, maxNewTokens: 5, ignoreEos: true })
      look(fork)
      look(cache)
      fork.truncate!(21)
      look(fork)
      const cut = await model.forward([{ cache: fork, tokens: [7] }])
      fork.dispose()
      cache.reset()
      look(cache)
      const again = await model.forward([{ cache, tokens: prompt }])
      look(cache)
      cache.dispose()
      return { infos, tokens, cut: cut.data, again: again.data }
    }
    expect(await follow(there)).toEqual(await follow(here))
  })

  it('holds conversations', async () => {
    const talk = async (model: CausalLM) => {
      const conversation = model.startConversation({ maxNewTokens: 4, ignoreEos: true, temperature: 3, seed: 1 })
      const results = [await conversation.send('Hello'), await conversation.send('again')]
      return results.map(({ text, reusedTokens, promptTokens }) => ({ text, reusedTokens, promptTokens }))
    }
    expect(await talk(there)).toEqual(await talk(here))
  })

  it('tells of progress, and a function that throws ends its call', async () => {
    const seen: number[] = []
    await there.prefill(there.createCache(), prompt, { onPrefill: (read) => seen.push(read) })
    await there.generate(prompt, { maxNewTokens: 1, onPrefill: (read) => seen.push(read) })
    for await (const _ of there.stream(prompt, { maxNewTokens: 1, onPrefill: (read) => seen.push(read) })) {
    }
    expect(seen).toEqual([8, 16, 20, 8, 16, 20, 8, 16, 20])
    const onPrefill = (): void => {
      throw new Error('seen enough')
    }
    await expect(there.generate(prompt, { onPrefill })).rejects.toThrow('seen enough')
    await expect(collectEvents(there, { onPrefill })).rejects.toThrow('seen enough')
    expect((await there.generate(prompt, { maxNewTokens: 2 })).generatedTokens).toBe(2)
  })

  it('can be aborted: before, while it reads, while it writes', async () => {
    const before = await there.generate(prompt, { signal: AbortSignal.abort() })
    expect(before).toMatchObject({ finishReason: 'aborted', generatedTokens: 0 })
    const long = Array.from({ length: 4000 }, (_, i) => i % 250)
    const reading = new AbortController()
    const cache = there.createCache()
    const read = there.prefill(cache, long, { signal: reading.signal, onPrefill: () => reading.abort() })
    await expect(read).rejects.toMatchObject({ code: 'aborted' })
    expect(cache.seenTokens).toBeGreaterThan(0)
    expect(cache.seenTokens).toBeLessThan(4000)
    const writing = new AbortController()
    let count = 0
    for await (const event of there.stream(prompt, { signal: writing.signal, ignoreEos: true, maxNewTokens: 999 })) {
      if (++count === 2) writing.abort()
      if (event.type === 'done') expect(event.result).toMatchObject({ finishReason: 'aborted', generatedTokens: 2 })
    }
    expect(count).toBe(3)
  })

  it('leaves a cache as it was when the reader of a stream left', async () => {
    const leave = async (model: CausalLM) => {
      const cache = model.createCache()
      for await (const event of model.stream(prompt, { cache, ignoreEos: true })) if (event.type === 'token') break
      return cache.seenTokens
    }
    expect(await leave(there)).toBe(await leave(here))
  })
})

describe('the event loop of the caller', () => {
  /** Turns of the loop while `work` goes on. */
  async function countTurns(work: () => Promise<unknown>): Promise<number> {
    let turns = 0
    let isOver = false
    const turn = (): void => {
      turns++
      if (!isOver) setImmediate(turn)
    }
    setImmediate(turn)
    await work()
    isOver = true
    return turns
  }

  it('is not what runs the model', async () => {
    const text = Array.from({ length: 2000 }, (_, i) => i % 250)
    const inThread = await countTurns(() => here.prefill(here.createCache(), text))
    const beside = await countTurns(() => there.prefill(there.createCache(), text))
    // In this thread each turn of the loop is a part of a step of the model; beside it, turns are idle.
    expect(beside).toBeGreaterThan(4 * inThread)
  })
})
