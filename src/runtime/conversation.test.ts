/** Conversations on a model whose logits depend on every token: a cache that holds a wrong one gives a wrong answer. */
import { describe, expect, it } from 'vitest'
import type { ChatMessage, Conversation, ConversationOptions, TurnEvent, TurnOptions } from './contract.ts'
import { CachedConversation } from './conversation.ts'
import { generateText } from './generate.ts'
import { asLanguageModel, createTableModel, type TableModel } from './testing/table-model.ts'

/** y user, z assistant, x system; `forgets`: answers of earlier turns lose their first letter, as reasoning does. */
function createModel({ canTruncate = true, forgets = false } = {}): TableModel {
  const model = createTableModel({ vocabSize: 27, endBias: -100, canTruncate })
  const marks: Record<string, string> = { user: 'y', assistant: 'z', system: 'x' }
  const renderChat: TableModel['tokenizer']['renderChat'] = (messages, { addGenerationPrompt = true } = {}) =>
    messages
      .map(
        ({ role, content }) => `${marks[role]}${forgets && role === 'assistant' ? String(content).slice(1) : content}`,
      )
      .join('') + (addGenerationPrompt ? 'z' : '')
  return { ...model, tokenizer: { ...model.tokenizer, renderChat } }
}

function start(model: TableModel, options: ConversationOptions = {}): Conversation {
  return new CachedConversation(asLanguageModel(model), { maxNewTokens: 6, ignoreEos: true, ...options })
}

/** What the model answers when nothing is cached. */
async function fresh(model: TableModel, messages: readonly ChatMessage[]): Promise<string> {
  return (await generateText(model, messages, { maxNewTokens: 6, ignoreEos: true })).text
}

const user = (content: string): ChatMessage => ({ role: 'user', content })

for (const canTruncate of [true, false]) {
  describe(`a conversation whose cache ${canTruncate ? 'can' : 'can not'} go back`, () => {
    it('answers as the model does that reads everything each time, and reads only what is new', async () => {
      const model = createModel({ canTruncate })
      const conversation = start(model, { system: 'be' })
      for (const [turn, content] of ['hello', 'how', 'why'].entries()) {
        const before = conversation.messages
        const expected = await fresh(model, [...before, user(content)])
        const { text, reusedTokens, promptTokens } = await conversation.send(content)
        expect(text).toBe(expected)
        // The cache held all of the turns before.
        expect(promptTokens - reusedTokens).toBe(turn === 0 ? promptTokens : content.length + 2)
        expect(conversation.messages).toEqual([...before, user(content), { role: 'assistant', content: text }])
      }
      conversation.dispose()
      expect(model.open.size).toBe(0)
    })

    it('misses when an early token is changed, and answers the changed text', async () => {
      const model = createModel({ canTruncate })
      const conversation = start(model)
      await conversation.send('hello')
      await conversation.send('how')
      conversation.messages = conversation.messages.map((message, i) => (i === 0 ? user('hallo') : message))
      const expected = await fresh(model, [...conversation.messages, user('why')])
      const { text, reusedTokens } = await conversation.send('why')
      expect(text).toBe(expected)
      expect(reusedTokens).toBe(canTruncate ? 2 : 0) // "yh"
    })

    it('keeps what came before the answer when the template writes the answer differently', async () => {
      const model = createModel({ canTruncate, forgets: true })
      const conversation = start(model)
      await conversation.send('hello')
      const expected = await fresh(model, [...conversation.messages, user('how')])
      const { text, reusedTokens } = await conversation.send('how')
      expect(text).toBe(expected)
      expect(reusedTokens).toBeGreaterThanOrEqual('yhello'.length)
      const third = await fresh(model, [...conversation.messages, user('why')])
      expect((await conversation.send('why')).text).toBe(third)
      conversation.dispose()
      expect(model.open.size).toBe(0)
    })

    it('answers again when a turn is taken back', async () => {
      const model = createModel({ canTruncate })
      const conversation = start(model)
      const first = await conversation.send('hello')
      conversation.messages = []
      const again = await conversation.send('hello')
      expect(again.text).toBe(first.text)
      expect(again.reusedTokens).toBe(6) // "yhello": the last token of a prompt is always read
    })

    it('keeps an answer as far as its reader saw it, and goes on from there', async () => {
      const model = createModel({ canTruncate })
      const conversation = start(model)
      let seen = ''
      for await (const event of conversation.stream('hello')) {
        if (event.type === 'token') seen += event.text
        if (seen.length >= 2) break
      }
      expect(conversation.messages.at(-1)).toEqual({ role: 'assistant', content: seen })
      const expected = await fresh(model, [...conversation.messages, user('how')])
      const { text, reusedTokens } = await conversation.send('how')
      expect(text).toBe(expected)
      expect(reusedTokens).toBeGreaterThanOrEqual('yhelloz'.length)
    })
  })
}

describe('a turn', () => {
  it('that is aborted ends with what there is', async () => {
    const conversation = start(createModel())
    const stop = new AbortController()
    const events: TurnEvent[] = []
    for await (const event of conversation.stream('hello', { signal: stop.signal })) {
      events.push(event)
      if (events.length === 2) stop.abort()
    }
    const done = events.at(-1)!
    expect(done).toMatchObject({ type: 'done', result: { finishReason: 'aborted', generatedTokens: 2 } })
    expect(conversation.messages).toHaveLength(2)
  })

  it.each([true, false])(
    'that is aborted while it reads ends there, and what was read is reused (%s)',
    async (canTruncate) => {
      const model = createModel({ canTruncate })
      const conversation = start(model)
      const stop = new AbortController()
      const options = { signal: stop.signal, onPrefill: (read: number) => read >= 8 && stop.abort() }
      const long = 'abcdefghijklmnopqrstuvw'
      const { finishReason, text } = await conversation.send(long, options as TurnOptions)
      expect({ finishReason, text }).toEqual({ finishReason: 'aborted', text: '' })
      expect(conversation.getCacheInfo().seenTokens).toBe(8)
      conversation.messages = []
      expect((await conversation.send(long)).reusedTokens).toBe(8)
    },
  )

  it('that fails adds nothing, and the next one works', async () => {
    const model = createModel()
    let fails = false
    const forward: TableModel['forward'] = (batch) => {
      if (fails) throw new Error('out of luck')
      return model.forward(batch)
    }
    const conversation = start({ ...model, forward })
    await conversation.send('hello')
    const before = conversation.messages
    fails = true
    await expect(conversation.send('how')).rejects.toThrow('out of luck')
    fails = false
    expect(conversation.messages).toEqual(before)
    await expect(conversation.send('how', { topP: 7 })).rejects.toThrow('for topP, got 7')
    await expect(conversation.send(7 as unknown as string)).rejects.toThrow('expected a text or messages, got 7')
    expect(conversation.messages).toEqual(before)
    const expected = await fresh(model, [...before, user('how')])
    expect((await conversation.send('how')).text).toBe(expected)
  })

  it('has one answer, from the cache of the conversation, and one at a time', async () => {
    const conversation = start(createModel())
    await expect(conversation.send('a', { n: 2 } as object)).rejects.toThrow('got option "n"')
    expect(() => start(createModel(), { numBeams: 2 } as object)).toThrow('got option "numBeams"')
    const first = conversation.send('hello')
    await expect(conversation.send('how')).rejects.toThrow('expected the turn before to be over')
    await first
    conversation.dispose()
    conversation.dispose()
    await expect(conversation.send('how')).rejects.toThrow('expected a conversation in use')
  })

  it('says how much of the whole conversation is read', async () => {
    const conversation = start(createModel({ canTruncate: false }))
    await conversation.send('hello')
    const seen: [number, number][] = []
    const { promptTokens, reusedTokens } = await conversation.send('how', { onPrefill: (...n) => seen.push(n) })
    expect(seen.at(-1)).toEqual([promptTokens, promptTokens])
    expect(seen[0]![0]).toBeGreaterThan(reusedTokens)
  })
})
