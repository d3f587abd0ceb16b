/** A model in a thread of its own against the same model in this thread. */
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Worker } from 'node:worker_threads'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { KvCache } from '../../cache/contract.ts'
import { type DogeCheckpoint, writeDogeCheckpoint } from '../../onnx/testing/doge-checkpoint.ts'
import { isKvasirError } from '../../tensor/error.ts'
import type { CausalLM, GenerateOptions, StreamEvent } from '../contract.ts'
import { loadModel as loadHere } from '../load-model.ts'
import { loadModel } from '../open-model.ts'
import { openInWorker, startThread } from './open.ts'

let checkpoint: DogeCheckpoint
let here: CausalLM
let there: CausalLM
beforeAll(async () => {
  checkpoint = await writeDogeCheckpoint()
  await writeFile(join(checkpoint.folder, 'chat_template.jinja'), '{% for m in messages %}{{ m.content }}{% endfor %}')
  const options = { threads: 1, chunkSize: 8, policy: 'full' } as const
  here = await loadHere(checkpoint.folder, options)
  there = await loadModel(checkpoint.folder, options)
})
afterAll(async () => {
  await here.dispose()
  await there.dispose()
  await rm(checkpoint.folder, { recursive: true })
})

const prompt = Array.from({ length: 20 }, (_, i) => (i * 37 + 5) % 250)

async function events(model: CausalLM, options: GenerateOptions): Promise<StreamEvent[]> {
  const all: StreamEvent[] = []
  for await (const event of model.stream(prompt, options)) all.push(event)
  return all
}

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
      expect((await events(there, options)).map(timeless)).toEqual((await events(here, options)).map(timeless))
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
    await expect(events(there, { onPrefill })).rejects.toThrow('seen enough')
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

  it('refuses with the errors of the model, code and all', async () => {
    const wrong: [() => Promise<unknown>, string, string][] = [
      [() => there.generate(''), 'invalid-argument', 'expected at least one token, got none'],
      [() => there.generate(prompt, { topP: 3 }), 'invalid-argument', 'for topP, got 3'],
      [() => events(there, { topP: 3 }), 'invalid-argument', 'for topP, got 3'],
      [() => there.forward([{ cache: there.createCache(), tokens: [999] }]), 'invalid-argument', 'got 999 at index 0'],
      [() => there.forward([]), 'invalid-argument', 'expected at least one entry'],
      [() => there.forward([{ cache: here.createCache(), tokens: [1] }]), 'invalid-argument', 'a cache of this model'],
      [() => there.generate(prompt, { tools: [() => 1] }), 'invalid-argument', 'expected options that are data'],
      [async () => there.createCache({ window: 0 }), 'invalid-argument', 'for window, got 0'],
      [async () => there.createCache({ windows: 3 } as object), 'invalid-argument', 'did you mean "window"'],
      [
        async () => there.createCache({ policy: (() => 1) as never }),
        'invalid-argument',
        'expected options that are data',
      ],
      [() => loadModel(checkpoint.folder, { policy: (() => 1) as never }), 'invalid-argument', 'options that are data'],
      [async () => there.createCache().layer(0), 'unsupported', 'load with worker: false'],
    ]
    for (const [call, code, message] of wrong) {
      const error = await call().then(
        () => undefined,
        (reason: unknown) => reason,
      )
      expect(isKvasirError(error) && error.code, message).toBe(code)
      expect((error as Error).message).toContain(message)
      expect((error as Error).message.match(/\[kvasir:/g)).toHaveLength(1)
    }
    const cache = there.createCache()
    cache.dispose()
    await expect(there.forward([{ cache, tokens: [1] }])).rejects.toThrow('one that was disposed')
  })

  it('refuses to load what the model in this thread refuses to load', async () => {
    await expect(loadModel('/nowhere/at/all')).rejects.toMatchObject({ code: 'not-found' })
    await expect(loadModel(checkpoint.folder, { chunkSize: 0 })).rejects.toThrow('for chunkSize, got 0')
    await expect(loadModel(checkpoint.folder, { worker: 1 as unknown as boolean })).rejects.toThrow('for worker, got 1')
  })

  it('can be disposed of twice, waits for calls before, and refuses those after', async () => {
    const model = await loadModel(checkpoint.folder, { threads: 1 })
    const cache = model.createCache()
    const last = model.forward([{ cache, tokens: [1] }])
    await Promise.all([model.dispose(), model.dispose()])
    expect((await last).dims).toEqual([1, 260])
    await expect(model.forward([{ cache, tokens: [1] }])).rejects.toThrow('got one that was disposed')
    await expect(model.generate('Hi')).rejects.toThrow('got one that was disposed')
    cache.dispose()
  })

  it('fails every call, those that wait and later ones, when its thread ends', async () => {
    let thread: Worker | undefined
    const model = await openInWorker(checkpoint.folder, { threads: 1 }, (data) => {
      thread = startThread(data)
      return thread
    })
    const waiting = [
      model.generate(prompt, { maxNewTokens: 100_000, ignoreEos: true }),
      model.forward([{ cache: model.createCache(), tokens: prompt }]),
    ]
    const refused = Promise.all(
      waiting.map((call) =>
        expect(call).rejects.toThrow('the thread of the model ended with exit code 1; load the model'),
      ),
    )
    await thread!.terminate()
    await refused
    await expect(model.generate('Hi')).rejects.toMatchObject({ code: 'internal' })
    model.createCache().dispose()
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
