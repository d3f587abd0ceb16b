/** What a model in a thread of its own refuses, and how it ends. */
import type { Worker } from 'node:worker_threads'
import { describe, expect, it } from 'vitest'
import { isKvasirError } from '../../tensor/error.ts'
import type { CausalLM } from '../contract.ts'
import { loadModel } from '../open-model.ts'
import { openInWorker, startThread } from './open.ts'
import { collectEvents, prompt, usePair } from './testing/pair.ts'

let folder: string
let here: CausalLM
let there: CausalLM
usePair((pair) => {
  folder = pair.checkpoint.folder
  here = pair.here
  there = pair.there
})

describe('a model in a thread of its own', () => {
  it('refuses with the errors of the model, code and all', async () => {
    const wrong: [() => Promise<unknown>, string, string][] = [
      [() => there.generate(''), 'invalid-argument', 'expected at least one token, got none'],
      [() => there.generate(prompt, { topP: 3 }), 'invalid-argument', 'for topP, got 3'],
      [() => collectEvents(there, { topP: 3 }), 'invalid-argument', 'for topP, got 3'],
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
      [() => loadModel(folder, { policy: (() => 1) as never }), 'invalid-argument', 'options that are data'],
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
    await expect(loadModel(folder, { chunkSize: 0 })).rejects.toThrow('for chunkSize, got 0')
    await expect(loadModel(folder, { worker: 1 as unknown as boolean })).rejects.toThrow('for worker, got 1')
  })

  it('can be disposed of twice, waits for calls before, and refuses those after', async () => {
    const model = await loadModel(folder, { threads: 1 })
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
    const model = await openInWorker(folder, { threads: 1 }, (data) => {
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
