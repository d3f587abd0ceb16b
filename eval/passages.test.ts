import { expect, test } from 'vitest'
import { createFakeModel } from '../test/fake-model.ts'
import { storyPassages, textPassages } from './passages.ts'

const { tokenizer } = createFakeModel(() => '')
const count = (length: number) => Array.from({ length }, (_, i) => i)

test('parts of a text are spread over it, each with what follows', () => {
  const passages = textPassages(count(1000), { contextTokens: 100, predictTokens: 20, passages: 3 })
  expect(passages).toHaveLength(3)
  for (const [index, { context, continuations }] of passages.entries()) {
    const start = [0, 440, 880][index] as number
    expect([...context]).toEqual(count(99).map((i) => start + i))
    const { prompt, answer, isQuestion } = continuations[0]!
    expect(prompt).toEqual([start + 99])
    expect(answer).toEqual(count(20).map((i) => start + 100 + i))
    expect(isQuestion).toBe(false)
  }
})

test('a short text is one part, a quarter of it compared; a shorter one is refused', () => {
  const passages = textPassages(count(40), { contextTokens: 4096, predictTokens: 256, passages: 4 })
  expect(passages.map(({ context }) => context.length)).toEqual([29])
  expect(passages[0]?.continuations[0]?.answer).toEqual(count(10).map((i) => 30 + i))
  expect(() => textPassages(count(31), { contextTokens: 8, predictTokens: 8, passages: 1 })).toThrow('got 31')
})

test('stories have their facts all over, and questions with the right answers', () => {
  const options = { contextTokens: 1500, questions: 14, questionsPerDocument: 8, seed: 3 }
  const passages = [...storyPassages(tokenizer, options)]
  expect(passages.map(({ continuations }) => continuations.length)).toEqual([8, 6])
  const [{ context, continuations }] = passages as [(typeof passages)[0]]
  const half = tokenizer.decode([...context.slice(context.length / 2)])
  // "The brass key is in the blue drawer.": the last two words stand in the story where the fact does.
  const values = continuations.map(({ answer }) =>
    tokenizer.decode(answer).trim().split(' ').slice(-2).join(' ').replace('.', ''),
  )
  const late = values.filter((value) => half.includes(value))
  expect(late.length).toBeGreaterThan(1)
  expect(late.length).toBeLessThan(values.length)
  for (const { prompt, answer, isQuestion } of continuations) {
    expect(isQuestion).toBe(true)
    expect(tokenizer.decode(prompt)).toMatch(/^\n.+\?$/)
    expect(tokenizer.decode(answer)).toMatch(/^ .+\.\n$/)
  }
})
