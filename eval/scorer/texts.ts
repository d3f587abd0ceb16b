/** Texts to learn from and texts to judge by, from one text or from generated stories. */
import type { TextTokenizer } from '../../src/runtime/contract.ts'
import { invalidArgument } from '../../src/tensor/error.ts'
import { type Passage, storyPassages, textPassages } from '../passages.ts'

export interface TextOptions {
  readonly contextTokens: number
  /** Of a text: read after the context, so that something attends to it. */
  readonly predictTokens: number
  /** Most parts of a text, or stories. */
  readonly passages: number
  /** Share of the passages that are not learned from. */
  readonly heldOut: number
  /** Of the first story. */
  readonly seed: number
}

export interface Texts {
  readonly training: readonly Passage[]
  readonly heldOut: readonly Passage[]
}

/** Fewer say nothing about texts that were not seen. */
const leastPassages = 5
const leastTokens = 64
const questionsPerStory = 20

/**
 * @param text undefined: stories with questions
 * @throws KvasirError `invalid-argument` for a text that is too short
 */
export function readTexts(tokenizer: TextTokenizer, text: string | undefined, options: TextOptions): Texts {
  const { contextTokens, passages, heldOut, seed } = options
  const questions = questionsPerStory * Math.max(2, passages)
  const stories = { contextTokens, questions, questionsPerDocument: questionsPerStory, seed }
  const all = text === undefined ? [...storyPassages(tokenizer, stories)] : splitText(tokenizer.encode(text), options)
  const count = Math.min(all.length - 1, Math.max(1, Math.round(heldOut * all.length)))
  return { training: all.slice(0, -count), heldOut: all.slice(-count) }
}

/** A short text makes short passages rather than few. */
function splitText(tokens: readonly number[], { contextTokens, predictTokens, passages }: TextOptions): Passage[] {
  const wanted = contextTokens + predictTokens
  const size = Math.min(wanted, Math.floor(tokens.length / leastPassages))
  if (size < leastTokens) {
    throw invalidArgument(
      'eval',
      `expected a text of at least ${leastPassages * leastTokens} tokens, got ${tokens.length}`,
    )
  }
  const predicted = Math.max(1, Math.round((size * predictTokens) / wanted))
  const sizes = { contextTokens: size - predicted, predictTokens: predicted }
  return textPassages(tokens, { ...sizes, passages: Math.max(leastPassages, passages) })
}
