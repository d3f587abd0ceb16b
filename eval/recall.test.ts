import { expect, test } from 'vitest'
import { createFakeModel, type Respond } from '../test/fake-model.ts'
import type { MarkedText } from '../training/stories.ts'
import { ask, mark } from './ask.ts'
import { createDocument } from './document.ts'
import { evalRecall, tallyByKind } from './recall.ts'

const options = { contextTokens: 1500, questions: 12, seed: 5, questionsPerDocument: 5 }

/** Answers a question when the words of the right answer are still in what is known. */
function createReader(): Respond {
  const tokenizer = createFakeModel(() => '').tokenizer
  const answers = new Map<string, MarkedText>()
  for (const [index, facts] of [5, 5, 2].entries()) {
    const document = createDocument(tokenizer, { seed: options.seed + index, tokens: options.contextTokens, facts })
    for (const { prompt, answer } of document.questions) answers.set(prompt, answer)
  }
  return (known, prompt) => {
    const { text = '', valueSpans = [] } = answers.get(prompt.trim()) ?? {}
    const isKnown = valueSpans.every(([begin, end]) => known.includes(text.slice(begin, end)))
    return isKnown ? `${text}\nNext question?` : ' I have forgotten that.\n'
  }
}

test('a model that keeps everything answers every question', async () => {
  const result = await evalRecall(createFakeModel(createReader(), { policy: 'full' }), options)
  expect(result).toMatchObject({
    contextTokens: 1500,
    window: null,
    policy: 'full',
    questions: 12,
    correct: 12,
    recall: 1,
  })
  expect(result.documents).toBe(3)
  expect(result.misses).toEqual([])
})

test('a model that keeps the newest tokens has lost the facts', async () => {
  const model = createFakeModel(createReader(), { policy: 'window', window: 32 })
  const result = await evalRecall(model, options)
  expect(result).toMatchObject({ window: 32, policy: 'window', questions: 12, correct: 0, recall: 0, kvBytes: 128 })
  expect(result.misses).toHaveLength(5)
  expect(result.misses[0]?.said).toBe('I have forgotten that.')
})

test('each document has its own questions', async () => {
  const asked = new Set<string>()
  const model = createFakeModel((_, prompt) => {
    asked.add(prompt)
    return ' No.\n'
  })
  await evalRecall(model, options)
  expect(asked.size).toBeGreaterThan(10)
})

test('tallies by kind add up to the whole', async () => {
  const reader = createReader()
  const model = createFakeModel((known, prompt) => (prompt.includes('the ') ? reader(known, prompt) : ' No.\n'))
  const { byKind, questions, correct } = await evalRecall(model, options)
  expect(correct).toBeGreaterThan(0)
  expect(correct).toBeLessThan(questions)
  const tallies = Object.values(byKind)
  expect(tallies.reduce((sum, tally) => sum + tally.questions, 0)).toBe(questions)
  expect(tallies.reduce((sum, tally) => sum + tally.correct, 0)).toBe(correct)
  expect(tallyByKind([])).toEqual({})
})

test('progress reaches the end and never goes back', async () => {
  const seen: number[] = []
  const model = createFakeModel(createReader())
  await evalRecall(model, { ...options, onProgress: ({ tokensRead }) => seen.push(tokensRead) })
  expect([...seen].sort((a, b) => a - b)).toEqual(seen)
  expect(seen.at(-1)).toBeGreaterThanOrEqual(3 * options.contextTokens)
})

test('an answer is right only when it is the same to the letter, spaces around it aside', () => {
  const question = { kind: 'place', prompt: 'Where?', answer: { text: ' In the box.', valueSpans: [] } } as const
  expect(mark(question, 'In the box.').isCorrect).toBe(true)
  expect(mark(question, ' In the box. ').isCorrect).toBe(true)
  expect(mark(question, 'in the box.').isCorrect).toBe(false)
  expect(mark(question, 'In the box').isCorrect).toBe(false)
  expect(mark(question, '').isCorrect).toBe(false)
  expect(mark(question, 'In the box. Or not.').isCorrect).toBe(false)
})

test('asking leaves the cache as it was', async () => {
  const model = createFakeModel(() => ' Yes.\n')
  const cache = model.createCache()
  await model.prefill(cache, model.tokenizer.encode('Some text.'))
  const before = cache.seenTokens
  const question = { kind: 'place', prompt: 'Where?', answer: { text: ' Yes.', valueSpans: [] } } as const
  const pieces: string[] = []
  const answer = await ask(model, cache, question, { onText: (text) => pieces.push(text) })
  expect(answer).toMatchObject({ said: 'Yes.', isCorrect: true })
  expect(pieces.join('')).toBe(' Yes.')
  expect(cache.seenTokens).toBe(before)
})

test('counts below one and an interrupt are refused', async () => {
  const model = createFakeModel(() => '')
  await expect(evalRecall(model, { ...options, questions: 0 })).rejects.toThrow('questions')
  await expect(evalRecall(model, { ...options, contextTokens: 0.5 })).rejects.toThrow('contextTokens')
  await expect(evalRecall(model, { ...options, signal: AbortSignal.abort() })).rejects.toMatchObject({
    code: 'aborted',
  })
})

test('a document has the length that was asked for, its facts first, and one question a fact', () => {
  const { tokenizer } = createFakeModel(() => '')
  const document = createDocument(tokenizer, { seed: 3, tokens: 4000, facts: 8 })
  expect(document.tokens.length).toBeGreaterThanOrEqual(4000)
  expect(document.tokens.length).toBeLessThan(4100)
  expect(document.questions).toHaveLength(8)
  expect(document.factTokens).toBeLessThan(1000)
  expect(tokenizer.decode([...document.tokens])).toBe(document.segments.map(({ text }) => text).join(''))
  expect(createDocument(tokenizer, { seed: 3, tokens: 4000, facts: 8 }).tokens).toEqual(document.tokens)
})
