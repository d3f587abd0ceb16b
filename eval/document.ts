/**
 * A generated story as a model reads it: token ids, the questions about it, and the sentences for a reader who wants to
 * see what is in there.
 */
import type { TextTokenizer } from '../src/runtime/contract.ts'
import { createStory, type Question, type Segment, type Story } from '../training/stories.ts'

export interface DocumentOptions {
  readonly seed: number
  /** The document ends with the first sentence that reaches this many tokens. */
  readonly tokens: number
  /** Things, people and passwords that facts are about; there is one question about each. */
  readonly facts: number
  /** Facts stand close together at the start (default), or anywhere in the first nine tenths. */
  readonly placement?: 'start' | 'spread'
}

export interface Document {
  readonly tokens: Int32Array
  readonly segments: readonly Segment[]
  readonly questions: readonly Question[]
  /** Tokens up to the end of the last fact: all answers stand before it. */
  readonly factTokens: number
}

/** A thing may be put somewhere and then moved twice: the latest place counts. */
const maxMoves = 2

/** What is no fact is filler. */
export function createDocument(tokenizer: TextTokenizer, options: DocumentOptions): Document {
  const encode = rememberLast((text) => tokenizer.encode(text))
  const story = openStory(options, (text) => encode(text).length)
  const tokens: number[] = []
  const segments: Segment[] = []
  let factTokens = 0
  for (const segment of story.segments()) {
    segments.push(segment)
    for (const token of encode(segment.text)) tokens.push(token)
    if (segment.statement) factTokens = tokens.length
  }
  return { tokens: Int32Array.from(tokens), segments, questions: story.questions, factTokens }
}

/** The tokens of such a document in pieces of about `pieceTokens`, made as they are asked for. */
export function* streamDocument(
  tokenizer: TextTokenizer,
  options: DocumentOptions,
  pieceTokens: number,
): Generator<readonly number[]> {
  const encode = rememberLast((text) => tokenizer.encode(text))
  let piece: number[] = []
  for (const segment of openStory(options, (text) => encode(text).length).segments()) {
    piece.push(...encode(segment.text))
    if (piece.length < pieceTokens) continue
    yield piece
    piece = []
  }
  if (piece.length > 0) yield piece
}

function openStory(options: DocumentOptions, countTokens: (text: string) => number): Story {
  const { seed, tokens, facts, placement = 'start' } = options
  return createStory({ seed, facts, moves: maxMoves, targetTokens: tokens, placement, countTokens })
}

/** The story counts the tokens of each sentence just after it was encoded here: once is enough. */
function rememberLast(encode: (text: string) => number[]): (text: string) => number[] {
  let lastText: string | undefined
  let lastTokens: number[] = []
  return (text) => {
    if (text !== lastText) {
      lastTokens = encode(text)
      lastText = text
    }
    return lastTokens
  }
}
