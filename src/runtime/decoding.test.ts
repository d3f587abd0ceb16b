/** How texts are written and when they end, on a model whose every logit is known. */
import { describe, expect, it } from 'vitest'
import type { GenerateOptions, Prompt, StreamEvent } from './contract.ts'
import { collectText, generateText, streamText } from './generate.ts'
import { createSampler } from './sampler.ts'
import { createTableModel, type TableModel } from './testing/table-model.ts'

const prompt = [1, 2, 3, 4, 5]

/** Token by token with the whole text each time, one sampler, no cache. */
function slowTokens(model: TableModel, options: GenerateOptions, count: number): number[] {
  const sampler = createSampler({ temperature: options.temperature, topK: options.topK, seed: options.seed })
  const tokens: number[] = []
  while (tokens.length < count && tokens.at(-1) !== 0)
    tokens.push(sampler.sample(model.logitsAfter([...prompt, ...tokens])))
  return tokens
}

async function events(model: TableModel, options: GenerateOptions): Promise<StreamEvent[]> {
  const all: StreamEvent[] = []
  for await (const event of streamText(model, prompt, options)) all.push(event)
  return all
}

const tokensOf = (all: readonly StreamEvent[], index = 0): number[] =>
  all.flatMap((event) => (event.type === 'token' && event.index === index ? [event.token] : []))

const endless = { vocabSize: 9, endBias: -100 }

describe('several texts from one prompt', () => {
  it('are those that single calls with the seeds in turn give, and the prompt is read once', async () => {
    for (const seed of [1, 2, 3, 4, 5]) {
      const model = createTableModel({ seed })
      const options = { temperature: 1, topK: 6, seed: 40, maxNewTokens: 12 }
      const { choices, generatedTokens } = await generateText(model, prompt, { ...options, n: 4 })
      const expected = [40, 41, 42, 43].map((s) => slowTokens(model, { ...options, seed: s }, 12))
      expect(choices.map(({ tokens }) => tokens)).toEqual(expected)
      expect(generatedTokens).toBe(expected.flat().length)
      expect(model.calls.slice(0, 2)).toEqual([[4], [1]]) // the prompt, in chunks
      expect(model.open.size).toBe(0)
    }
  })

  it('end each for itself, and stream under their index', async () => {
    const model = createTableModel({ seed: 9, endBias: 1 })
    const all = await events(model, { temperature: 1, seed: 1, n: 3, maxNewTokens: 30 })
    const done = all.at(-1)!
    if (done.type !== 'done') throw new Error('expected "done" last')
    const { choices } = done.result
    expect(new Set(choices.map(({ tokens }) => tokens.length)).size).toBeGreaterThan(1)
    for (const [index, { tokens, text }] of choices.entries()) {
      expect(tokensOf(all, index)).toEqual(tokens)
      const pieces = all.flatMap((event) => (event.type === 'token' && event.index === index ? [event.text] : []))
      expect(pieces.join('')).toBe(text)
    }
    expect(done.result.tokens).toEqual(choices[0]!.tokens)
  })

  it('go through the model together', async () => {
    const model = createTableModel({ endBias: -100 })
    await generateText(model, prompt, { temperature: 1, n: 3, maxNewTokens: 3 })
    expect(model.calls).toEqual([[4], [1], [1, 1, 1], [1, 1, 1]])
  })

  it('leave a cache that was given with the prompt alone', async () => {
    const model = createTableModel()
    const cache = model.createCache()
    await generateText(model, prompt, { cache, temperature: 1, n: 2, maxNewTokens: 5 })
    expect(model.open.size).toBe(1)
    expect([...model.open][0]!.tokens).toEqual(prompt)
  })
})

describe('the end of a text', () => {
  it('comes with a stop token, which is drawn but not shown', async () => {
    const model = createTableModel(endless)
    const expected = slowTokens(model, {}, 10)
    const stop = expected[4]!
    const end = expected.indexOf(stop)
    const result = await generateText(model, prompt, { stopTokens: [stop], maxNewTokens: 10 })
    expect(result.tokens).toEqual(expected.slice(0, end + 1))
    expect(result).toMatchObject({ finishReason: 'stop', stopReason: stop })
    expect(result.text).toBe(model.tokenizer.decode(expected.slice(0, end)))
    const shown = await generateText(model, prompt, { stopTokens: [stop], maxNewTokens: 10, includeStop: true })
    expect(shown.text).toBe(model.tokenizer.decode(expected.slice(0, end + 1)))
  })

  it('says which stop text it was, and shows it when asked to', async () => {
    const model = createTableModel(endless)
    const text = model.tokenizer.decode(slowTokens(model, {}, 10))
    const stop = text.slice(4, 6)
    const options = { stop: ['nowhere', stop], maxNewTokens: 10 }
    const at = text.indexOf(stop)
    expect(await generateText(model, prompt, options)).toMatchObject({ text: text.slice(0, at), stopReason: stop })
    const shown = await generateText(model, prompt, { ...options, includeStop: true })
    expect(shown.text).toBe(text.slice(0, at) + stop)
  })

  it('does not come before minNewTokens, nor at an EOS that is ignored', async () => {
    const model = createTableModel({ endBias: 100 })
    expect((await generateText(model, prompt, {})).tokens).toEqual([0])
    const { tokens } = await generateText(model, prompt, { minNewTokens: 4 })
    expect(tokens).toHaveLength(5)
    expect(tokens.indexOf(0)).toBe(4)
    const ignored = await generateText(model, prompt, { ignoreEos: true, maxNewTokens: 6 })
    expect(ignored).toMatchObject({ tokens: [0, 0, 0, 0, 0, 0], finishReason: 'length' })
  })

  it('takes what the model says for what the caller does not', async () => {
    const model = { ...createTableModel(endless), generationDefaults: { maxNewTokens: 3, temperature: 1, topK: 1 } }
    expect((await generateText(model, prompt)).generatedTokens).toBe(3)
    expect((await generateText(model, prompt, { maxNewTokens: 5, topK: undefined })).tokens).toEqual(
      slowTokens(model, {}, 5),
    )
  })
})

describe('defaults of the model', () => {
  it('give way to what they do not fit', async () => {
    const model = { ...createTableModel(), generationDefaults: { temperature: 0.7, minNewTokens: 2 } }
    expect((await generateText(model, prompt, { numBeams: 2, maxNewTokens: 3 })).score).toBeDefined()
    await expect(generateText(model, prompt, { numBeams: 2, temperature: 0.7 })).rejects.toThrow('got 0.7')
    await expect(generateText(model, prompt, { responseFormat: 'json' })).rejects.toThrow('shows its vocabulary')
    const drafting = { ...createTableModel(endless), generationDefaults: { promptLookupTokens: 4, stop: 'zz' } }
    expect((await generateText(drafting, prompt, { maxNewTokens: 6 })).lookup).toBeDefined()
    expect((await generateText(drafting, prompt, { numBeams: 2, maxNewTokens: 3 })).score).toBeDefined()
  })
})

describe('bad words', () => {
  const pairs = (tokens: readonly number[]): string[] => tokens.slice(1).map((token, i) => `${tokens[i]} ${token}`)

  it.each([{}, { promptLookupTokens: 4 }, { temperature: 1, n: 3, seed: 5 }, { numBeams: 3 }])(
    'are in no text: %j',
    async (options) => {
      const model = createTableModel({ ...endless, memory: 2 })
      const long = { ...options, maxNewTokens: 24 }
      const plain = await generateText(model, prompt, long)
      // Without two of its pairs, and what follows the prompt, the text has to be another one.
      const badWordsIds = [...new Set(pairs(plain.tokens))].slice(0, 2).map((pair) => pair.split(' ').map(Number))
      badWordsIds.push([prompt.at(-1)!, plain.tokens[0]!])
      const { choices } = await generateText(model, prompt, { ...long, badWordsIds })
      const found = choices.flatMap(({ tokens }) => pairs([...prompt, ...tokens]))
      for (const word of badWordsIds) expect(found).not.toContain(word.join(' '))
    },
  )
})

describe('log probabilities', () => {
  it('are those of the model, whatever shapes the draw', async () => {
    const model = createTableModel({ seed: 4 })
    const options = { temperature: 2, logitBias: { 3: 50 }, logprobs: 2, maxNewTokens: 3 }
    const all = await events(model, options)
    const { logprobs, tokens } = await collectText(streamText(model, prompt, options))
    expect(tokens).toEqual([3, 3, 3])
    for (const [i, entry] of logprobs!.entries()) {
      const logits = [...model.logitsAfter([...prompt, ...tokens.slice(0, i)])]
      const total = Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit), 0))
      const order = logits.map((_, token) => token).sort((a, b) => logits[b]! - logits[a]!)
      expect(entry.logprob).toBeCloseTo(logits[3]! - total, 5)
      expect(entry.rank).toBe(order.indexOf(3) + 1)
      expect(entry.top.map(({ token }) => token)).toEqual(order.slice(0, 2))
      expect(all[i]).toMatchObject({ logprob: entry })
    }
    expect((await generateText(model, prompt, { maxNewTokens: 2 })).logprobs).toBeUndefined()
    expect((await generateText(model, prompt, { maxNewTokens: 2, logprobs: 0 })).logprobs![0]!.top).toEqual([])
  })
})

describe('prompt lookup', () => {
  /** A model that forgets falls into loops, which is where drafts are right. */
  const looping = (seed: number, canTruncate: boolean) =>
    createTableModel({ seed, canTruncate, memory: 2, vocabSize: 12, endBias: -100 })

  it.each([true, false])('changes no greedy text (caches that can go back: %s)', async (canTruncate) => {
    let accepted = 0
    for (let seed = 1; seed <= 12; seed++) {
      const plain = await generateText(looping(seed, canTruncate), prompt, { maxNewTokens: 40 })
      const model = looping(seed, canTruncate)
      const fast = await generateText(model, prompt, { maxNewTokens: 40, promptLookupTokens: 5, logprobs: 1 })
      expect(fast.tokens).toEqual(plain.tokens)
      expect(fast.text).toBe(plain.text)
      expect(fast.logprobs).toHaveLength(40)
      accepted += fast.lookup!.accepted
      expect(fast.lookup!.drafted).toBeGreaterThanOrEqual(fast.lookup!.accepted)
      expect(model.open.size).toBe(0)
    }
    expect(accepted).toBeGreaterThan(100)
  })

  it.each([true, false])(
    'changes no text of a seed, with penalties and stops (can go back: %s)',
    async (canTruncate) => {
      for (let seed = 1; seed <= 12; seed++) {
        const options = { temperature: 0.4, seed, frequencyPenalty: 0.1, stop: 'aba', n: 2, maxNewTokens: 40 }
        const plain = await generateText(looping(seed, canTruncate), prompt, options)
        const fast = await generateText(looping(seed, canTruncate), prompt, { ...options, promptLookupTokens: 4 })
        expect(fast.choices).toEqual(plain.choices)
      }
    },
  )

  it.each([true, false])(
    'leaves a given cache with what was written and no draft (can go back: %s)',
    async (canTruncate) => {
      for (let seed = 1; seed <= 12; seed++) {
        const model = looping(seed, canTruncate)
        const cache = model.createCache()
        const { tokens } = await generateText(model, prompt, { cache, maxNewTokens: 25, promptLookupTokens: 6 })
        expect([...model.open].map((open) => open.tokens)).toEqual([[...prompt, ...tokens]])
      }
    },
  )

  it('takes fewer steps', async () => {
    const model = looping(3, true)
    await generateText(model, prompt, { maxNewTokens: 60, promptLookupTokens: 8 })
    expect(model.calls.length).toBeLessThan(40)
  })
})

describe('refused', () => {
  const refused: [Prompt, GenerateOptions, string][] = [
    [prompt, { n: 2 }, 'expected a temperature above 0 for n = 2'],
    [prompt, { n: 0 }, 'for n, got 0'],
    [prompt, { logprobs: -1 }, 'for logprobs'],
    [prompt, { minNewTokens: 5, maxNewTokens: 3 }, 'expected an integer in 0..3 for minNewTokens, got 5'],
    [prompt, { stopTokens: [99] }, 'for stopTokens, got 99'],
    [prompt, { stopTokens: 3 as unknown as number[] }, 'expected an array of tokens for stopTokens, got 3'],
    [prompt, { logitBias: { 8: 1 } }, 'for a token of logitBias, got 8'],
    [prompt, { promptLookupTokens: 300 }, 'for promptLookupTokens'],
    [prompt, { numBeams: 2, temperature: 1 }, 'expected temperature 0 with numBeams, got 1'],
    [prompt, { numBeams: 2, n: 3 }, 'expected n of at most numBeams = 2, got 3'],
    [prompt, { numBeams: 2, promptLookupTokens: 3 }, 'either numBeams or promptLookupTokens'],
    [prompt, { numBeams: 2, earlyStopping: 'maybe' as 'never' }, 'for earlyStopping, got "maybe"'],
    [prompt, { lengthPenalty: Number.NaN }, 'for lengthPenalty, got NaN'],
    [[{ role: 'user', content: 'a' }, { content: 'b' }] as unknown as Prompt, {}, 'expected messages with a role'],
    [7 as unknown as Prompt, {}, 'expected a text, tokens or messages as prompt, got 7'],
  ]
  it.each(refused)('%j with %j', async (given, options, message) => {
    await expect(generateText(createTableModel(), given, options)).rejects.toThrow(message)
  })

  it('a stream of beams', async () => {
    await expect(collectText(streamText(createTableModel(), prompt, { numBeams: 2 }))).rejects.toThrow('use generate')
  })
})
