import { Tensor } from 'onnxruntime-node'
import { describe, expect, it } from 'vitest'
import type { KvCache } from '../cache/contract.ts'
import type { GenerateOptions, StreamEvent } from './contract.ts'
import { collectText, type Generator, streamText } from './generate.ts'

const end = 0

/** A model over bytes that answers any prompt with `answer`, then with EOS; it records what was fed. */
function scripted(answer: string | Uint8Array, chunkSize = 4) {
  const bytes = typeof answer === 'string' ? new TextEncoder().encode(answer) : answer
  const fed: number[][] = []
  let promptTokens = 0
  let disposed = 0
  const cache = {
    numLayers: 1,
    get seenTokens() {
      return fed.flat().length
    },
    getCacheInfo: () => ({ seenTokens: fed.flat().length }),
    dispose: () => disposed++,
  } as unknown as KvCache
  const model: Generator = {
    vocabSize: 256,
    chunkSize,
    createCache: () => cache,
    tokenizer: {
      encode: (text) => [...new TextEncoder().encode(text)],
      decode: (tokens) => new TextDecoder('utf-8', { ignoreBOM: true }).decode(Uint8Array.from(tokens)),
      renderChat: (messages) => messages.map(({ content }) => content).join('|'),
      eosTokens: [end],
    },
    async forward([entry]) {
      fed.push([...entry!.tokens])
      const logits = new Float32Array(256)
      logits[bytes[fed.flat().length - promptTokens] ?? end] = 1
      return new Tensor('float32', logits, [1, 256])
    },
  }
  const run = async (prompt: string, options: GenerateOptions = {}) => {
    promptTokens = prompt.length
    const events: StreamEvent[] = []
    for await (const event of streamText(model, prompt, options)) events.push(event)
    const done = events.at(-1)!
    if (done.type !== 'done') throw new Error('expected "done" last')
    const pieces = events.flatMap((event) => (event.type === 'token' ? [event.text] : []))
    return { pieces, result: done.result }
  }
  return { model, run, fed, cache, disposals: () => disposed }
}

describe('generation', () => {
  it('ends at EOS, which is drawn but not shown', async () => {
    const { run, fed, disposals } = scripted('hi')
    const { pieces, result } = await run('abc')
    expect(pieces).toEqual(['h', 'i', ''])
    expect(result).toMatchObject({ text: 'hi', finishReason: 'stop', promptTokens: 3, generatedTokens: 3 })
    expect(result.tokens).toEqual([104, 105, end])
    expect(fed).toEqual([[97, 98, 99], [104], [105]])
    expect(disposals()).toBe(1)
  })

  it('ends after maxNewTokens', async () => {
    const { run } = scripted('hello')
    expect((await run('a', { maxNewTokens: 2 })).result).toMatchObject({ text: 'he', finishReason: 'length' })
    expect((await run('a', { maxNewTokens: 0 })).result).toMatchObject({ text: '', finishReason: 'length' })
  })

  it('ends before a stop string, however tokens split it', async () => {
    const { pieces, result } = await scripted('one STOP two').run('a', { stop: ['STOP', 'never'] })
    expect(result).toMatchObject({ text: 'one ', finishReason: 'stop' })
    expect(pieces.join('')).toBe('one ')
    expect((await scripted('one STOP two').run('a', { stop: 'O' })).result.text).toBe('one ST')
  })

  it('shows at the end what it held back', async () => {
    const eos = await scripted('one ST').run('a', { stop: 'STOP' })
    expect([eos.result.text, eos.pieces.join('')]).toEqual(['one ST', 'one ST'])
    const length = await scripted('one STO').run('a', { stop: 'STOP', maxNewTokens: 6 })
    expect([length.result.text, length.pieces.join('')]).toEqual(['one ST', 'one ST'])
    const half = await scripted(Uint8Array.of(97, 0xf0, 0x9f)).run('a')
    expect([half.result.text, half.pieces.join('')]).toEqual(['a\ufffd', 'a\ufffd'])
  })

  it('never shows half a character', async () => {
    const { pieces, result } = await scripted('ß😀').run('a')
    expect(pieces).toEqual(['', 'ß', '', '', '', '😀', ''])
    expect(result.text).toBe('ß😀')
  })

  it('reads the prompt in chunks and tells how far it is', async () => {
    const { run, fed } = scripted('x')
    const seen: [number, number][] = []
    await run('abcdefghij', { onPrefill: (read, all) => seen.push([read, all]) })
    expect(fed.map((tokens) => tokens.length)).toEqual([4, 4, 2, 1])
    expect(seen).toEqual([
      [4, 10],
      [8, 10],
      [10, 10],
    ])
  })

  it('leaves a cache that the caller gave with prompt and answer, but no EOS', async () => {
    const { run, fed, cache, disposals } = scripted('hello')
    await run('a', { cache, maxNewTokens: 3 })
    expect(String.fromCharCode(...fed.flat())).toBe('ahel')
    expect(disposals()).toBe(0)
    const whole = scripted('hi')
    await whole.run('a', { cache: whole.cache })
    expect(String.fromCharCode(...whole.fed.flat())).toBe('ahi')
  })

  it('stops when it is aborted: before, while it reads, and between tokens', async () => {
    const before = await scripted('hello').run('a', { signal: AbortSignal.abort() })
    expect(before.result).toMatchObject({ text: '', finishReason: 'aborted' })
    const reading = new AbortController()
    const chunks = scripted('hello')
    const result = await chunks.run('abcdefgh', { signal: reading.signal, onPrefill: () => reading.abort() })
    expect(result.result.finishReason).toBe('aborted')
    expect(chunks.fed).toEqual([[97, 98, 99, 100]])
    const writing = new AbortController()
    const { model, disposals } = scripted('hello')
    const events: StreamEvent[] = []
    for await (const event of streamText(model, 'a', { signal: writing.signal })) {
      events.push(event)
      if (events.length === 2) writing.abort()
    }
    expect(events.map(({ type }) => type)).toEqual(['token', 'token', 'done'])
    expect(events.at(-1)).toMatchObject({ result: { finishReason: 'aborted', generatedTokens: 2 } })
    expect(disposals()).toBe(1)
  })

  it('disposes its cache when the reader leaves or the model fails', async () => {
    const leaving = scripted('hello')
    for await (const event of streamText(leaving.model, 'a')) if (event.type === 'token') break
    expect(leaving.disposals()).toBe(1)
    const { model, disposals } = scripted('hello')
    const failing = { ...model, forward: () => Promise.reject(new Error('no')) }
    await expect(collectText(streamText(failing, 'a'))).rejects.toThrow('no')
    expect(disposals()).toBe(1)
  })

  const refused: [unknown, unknown, string][] = [
    ['', {}, 'expected at least one token, got none'],
    [[], {}, 'expected at least one token, got none'],
    [[256], {}, 'expected tokens in 0..255, got 256 at index 0'],
    [[1, -1], {}, 'got -1 at index 1'],
    [[1.5], {}, 'got 1.5'],
    [['a'], {}, 'got "a"'],
    ['a', { maxTokens: 3 }, 'unknown option "maxTokens" for generation'],
    ['a', { maxNewTokens: -1 }, 'for maxNewTokens'],
    ['a', { stop: '' }, 'expected non-empty strings for stop'],
    ['a', { stop: ['x', 3] }, 'expected non-empty strings for stop, got 3'],
    ['a', { topP: 2 }, 'for topP'],
  ]
  for (const [prompt, options, message] of refused) {
    it(`refuses ${JSON.stringify(prompt)} with ${JSON.stringify(options)}`, async () => {
      const { model } = scripted('hello')
      await expect(collectText(streamText(model, prompt as string, options as GenerateOptions))).rejects.toThrow(
        message,
      )
    })
  }
})
