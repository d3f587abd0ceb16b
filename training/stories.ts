/**
 * Long stories with facts in them and questions about those facts.
 *
 * The one source of text for the tokenizer, the training samples, evaluation and demos: a story is a function of its
 * options, and is streamed sentence by sentence, so a document of a million tokens needs no memory.
 */
import { createSubjects, type MarkedText, type Question, type Statement, type Subject } from './facts.ts'
import { createFiller } from './filler.ts'
import { createRandom, type Random } from './random.ts'

export type { FactKind, MarkedText, Question, Span, Statement } from './facts.ts'

export interface StoryOptions {
  readonly seed: number
  /** Subjects that are asked about; each is stated once, things that move up to `1 + moves` times. */
  readonly facts: number
  /** Most often that a thing is moved or handed on after its first statement: 0, 1 or 2. */
  readonly moves: number
  /** The story ends with the first sentence that reaches this length (all statements are made in any case). */
  readonly targetTokens: number
  /** Length of a piece of text; the default counts words and punctuation marks, near enough to tokens. */
  readonly countTokens?: (text: string) => number
  /** Whether statements stand close together at the start, or anywhere in the first nine tenths. */
  readonly placement: 'start' | 'spread'
}

/** A sentence with the space or line break in front of it. `statement` is absent in filler. */
export interface Segment extends MarkedText {
  readonly statement?: Statement
}

export interface Story {
  /** The text in order. Every call starts again from the beginning. */
  segments(): Generator<Segment>
  /** One question a subject, with the answer that holds at the end. */
  readonly questions: readonly Question[]
}

/** Questions and answers stand on lines of their own after the story; an answer ends with a line break. */
export const questionPrefix = '\n'
export const answerEnd = '\n'

const paragraphChance = 0.12
const averageStatementTokens = 12

export function createStory(options: StoryOptions): Story {
  const random = createRandom(options.seed)
  const subjects = createSubjects(random, options.facts, options.moves)
  const statements = orderStatements(random, subjects)
  const begins = placeStatements(random, options, statements.length)
  const textSeed = random.below(2 ** 32)
  return {
    segments: () => tell(createRandom(textSeed), options, statements, begins),
    questions: subjects.map((subject) => subject.state(subject.numStatements - 1).question),
  }
}

/** Any order that keeps the versions of one subject in sequence. */
function orderStatements(random: Random, subjects: readonly Subject[]): Statement[] {
  const turns = random.shuffle(subjects.flatMap((subject) => Array<Subject>(subject.numStatements).fill(subject)))
  const told = new Map<Subject, number>()
  return turns.map((subject) => {
    const version = told.get(subject) ?? 0
    told.set(subject, version + 1)
    return subject.state(version)
  })
}

/** Token offsets, ascending, at or after which each statement is made. */
function placeStatements(random: Random, { placement, targetTokens }: StoryOptions, count: number): number[] {
  const room = targetTokens * 0.9
  const last = placement === 'spread' ? room : Math.min(room, count * averageStatementTokens * 2)
  return Array.from({ length: count }, () => random.next() * last).sort((a, b) => a - b)
}

function* tell(
  random: Random,
  { targetTokens, countTokens = countWords }: StoryOptions,
  statements: readonly Statement[],
  begins: readonly number[],
): Generator<Segment> {
  let tokens = 0
  let next = 0
  while (tokens < targetTokens || next < statements.length) {
    const statement = tokens > 0 && tokens >= (begins[next] ?? Infinity) ? statements[next] : undefined
    const sentence = statement?.sentence ?? { text: capitalise(createFiller(random)), valueSpans: [] }
    const separator = tokens === 0 ? '' : random.chance(paragraphChance) ? '\n' : ' '
    const segment = { ...prepend(separator, sentence), ...(statement && { statement }) }
    yield segment
    tokens += countTokens(segment.text)
    if (statement) next++
  }
}

function prepend(separator: string, { text, valueSpans }: MarkedText): MarkedText {
  const shift = separator.length
  return { text: separator + text, valueSpans: valueSpans.map(([begin, end]) => [begin + shift, end + shift]) }
}

function capitalise(sentence: string): string {
  return sentence.charAt(0).toUpperCase() + sentence.slice(1)
}

function countWords(text: string): number {
  return text.match(/\w+|[^\w\s]/g)?.length ?? 0
}
