/**
 * What caches are compared on: texts that are read, and continuations that are read after them, token by token. Nothing
 * of a continuation is known while its text is read, so a cache that forgets can't know what will be asked.
 */
import type { TextTokenizer } from '../src/runtime/contract.ts'
import { invalidArgument } from '../src/tensor/error.ts'
import { answerEnd, questionPrefix } from '../training/stories.ts'
import { createDocument } from './document.ts'

export interface Passage {
  readonly context: Int32Array
  readonly continuations: readonly Continuation[]
}

/** Read from a fork of the cache that holds the text. */
export interface Continuation {
  /** Read at once; at least one token. */
  readonly prompt: readonly number[]
  /** What comes next, token by token: at each of them logits are compared. */
  readonly answer: readonly number[]
  /** Whether `answer` is right or wrong, and not just one of many ways to go on. */
  readonly isQuestion: boolean
}

export interface StoryOptions {
  readonly contextTokens: number
  /** Questions in all. */
  readonly questions: number
  readonly questionsPerDocument: number
  /** Of the first document; the next ones count up. */
  readonly seed: number
}

/** Generated stories with facts all over them; after each, questions about the facts with the right answers. */
export function* storyPassages(tokenizer: TextTokenizer, options: StoryOptions): Generator<Passage> {
  const { contextTokens: tokens, questions, questionsPerDocument, seed } = options
  for (let index = 0; index * questionsPerDocument < questions; index++) {
    const facts = Math.min(questionsPerDocument, questions - index * questionsPerDocument)
    const document = createDocument(tokenizer, { seed: seed + index, tokens, facts, placement: 'spread' })
    const continuations = document.questions.map(({ prompt, answer }) => ({
      prompt: tokenizer.encode(questionPrefix + prompt),
      answer: tokenizer.encode(answer.text + answerEnd),
      isQuestion: true,
    }))
    yield { context: document.tokens, continuations }
  }
}

export interface TextOptions {
  /** Tokens that are read before; fewer where the text is short. */
  readonly contextTokens: number
  /** Tokens that are compared after them. */
  readonly predictTokens: number
  /** Most passages of one text, spread evenly over it. */
  readonly passages: number
}

/** Fewer tokens say nothing. */
const leastTokens = 32

/**
 * Parts of a text, each followed by what follows in the text.
 * @throws KvasirError `invalid-argument` for a text of fewer than 32 tokens
 */
export function textPassages(tokens: readonly number[], options: TextOptions): Passage[] {
  if (tokens.length < leastTokens) {
    throw invalidArgument('eval', `expected a text of at least ${leastTokens} tokens, got ${tokens.length}`)
  }
  const predicted = Math.min(options.predictTokens, Math.floor(tokens.length / 4))
  const size = Math.min(tokens.length, options.contextTokens + predicted)
  const count = Math.min(options.passages, Math.floor(tokens.length / size))
  return Array.from({ length: count }, (_, index) => {
    const start = count === 1 ? 0 : Math.floor((index * (tokens.length - size)) / (count - 1))
    const middle = start + size - predicted
    // The last token before is held back: what follows it is the first thing to be predicted.
    const continuation = { prompt: [tokens[middle - 1] as number], answer: tokens.slice(middle, start + size) }
    return {
      context: Int32Array.from(tokens.slice(start, middle - 1)),
      continuations: [{ ...continuation, isQuestion: false }],
    }
  })
}
