/**
 * Endless training samples on standard output, for train.py.
 *
 *     npx tsx training/samples.ts --tokenizer models/kvasir-tiny/tokenizer.json --length 256 --facts 3-8 --seed 1
 *
 * A sample is `length` token ids followed by `length` flags, all little-endian 16-bit integers. Flags:
 * bits 0-1 importance (0 none, 1 value token of a fact: to be kept, 2 to be forgotten), bit 2 first token of a
 * sentence, bits 3-4 role as a prediction target (0 running text, 1 answer, 2 value in an answer, 3 not predictable).
 *
 * A sample is a story, then a question about each fact, some also in the middle of the story, then small talk.
 * A share of samples are random strings that come again: they teach copying before there is anything to understand.
 */

import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { encodeMarked } from './marked-tokens.ts'
import { createRandom, type Random } from './random.ts'
import { answerEnd, createStory, type Question, questionPrefix, type Segment } from './stories.ts'
import { createEncoder, type Encoder, type TokenizerFile } from './tokenizer.ts'

const importance = { none: 0, keep: 1, forget: 2 } as const
const sentenceStart = 4
const target = { text: 0, answer: 8, value: 16, none: 24 } as const

const samplesPerWrite = 64
/** How often a sentence of the story is followed by a question about what has been told so far. */
const interruptionChance = 0.03
const averageQuestionTokens = 20

interface SampleOptions {
  readonly length: number
  readonly facts: readonly [low: number, high: number]
}

/** Collects one sample; tokens beyond its length are dropped. */
class Sample {
  readonly ids: Uint16Array
  readonly flags: Uint16Array
  used = 0

  constructor(length: number) {
    this.ids = new Uint16Array(length)
    this.flags = new Uint16Array(length)
  }

  get isFull(): boolean {
    return this.used >= this.ids.length
  }

  push(id: number, flags: number): void {
    if (this.isFull) return
    this.ids[this.used] = id
    this.flags[this.used++] = flags
  }
}

/** Each question is asked once at the end, since an answer given before would be easier to find than the fact. */
function tellStory(random: Random, encoder: Encoder, { length, facts: [low, high] }: SampleOptions): Sample {
  const sample = new Sample(length)
  const facts = random.between(low, high)
  const story = createStory({
    seed: random.below(2 ** 32),
    facts,
    moves: random.between(0, 2),
    targetTokens: length - facts * averageQuestionTokens,
    placement: random.chance(0.5) ? 'start' : 'spread',
  })
  const told = new Map<number, Question>()
  let afterAnswer = false
  for (const segment of story.segments()) {
    pushSegment(sample, encoder, afterAnswer ? withoutSeparator(segment) : segment)
    if (segment.statement) told.set(segment.statement.subject, segment.statement.question)
    afterAnswer = told.size > 0 && random.chance(interruptionChance)
    if (afterAnswer) pushQuestion(sample, encoder, random.pick([...told.values()]), true)
  }
  for (const question of random.shuffle([...told.values()])) {
    pushQuestion(sample, encoder, question, !afterAnswer)
    afterAnswer = true
  }
  for (const segment of smallTalk(random, length - sample.used)) pushSegment(sample, encoder, segment)
  return sample
}

function smallTalk(random: Random, targetTokens: number): Iterable<Segment> {
  return createStory({ seed: random.below(2 ** 32), facts: 0, moves: 0, targetTokens, placement: 'start' }).segments()
}

function withoutSeparator({ text, valueSpans, ...rest }: Segment): Segment {
  return { ...rest, text: text.slice(1), valueSpans: valueSpans.map(([begin, end]) => [begin - 1, end - 1]) }
}

function pushSegment(sample: Sample, encoder: Encoder, segment: Segment): void {
  const { ids, isValue } = encodeMarked(encoder, segment)
  for (const [at, id] of ids.entries()) {
    sample.push(id, (isValue[at] ? importance.keep : importance.forget) | (at === 0 ? sentenceStart : 0))
  }
}

/** The answer repeats a fact in the words of a statement, so keeping its values is neither asked for nor punished. */
function pushQuestion(sample: Sample, encoder: Encoder, { prompt, answer }: Question, isFirst: boolean): void {
  const lead = isFirst ? questionPrefix + prompt : prompt
  for (const [at, id] of encoder.encode(lead).entries())
    sample.push(id, importance.forget | (at === 0 ? sentenceStart : 0))
  const { ids, isValue } = encodeMarked(encoder, { ...answer, text: answer.text + answerEnd })
  for (const [at, id] of ids.entries()) {
    sample.push(id, isValue[at] ? importance.none | target.value : importance.forget | target.answer)
  }
}

/** A string of random tokens, and parts of it again and again: each part is predictable from its second token on. */
function repeatString(random: Random, encoder: Encoder, { length }: SampleOptions): Sample {
  const sample = new Sample(length)
  const source = Array.from({ length: random.between(12, Math.floor(length / 2)) }, () =>
    random.between(1, encoder.vocabSize - 1),
  )
  for (const [at, id] of source.entries()) sample.push(id, target.none | (at % 12 === 0 ? sentenceStart : 0))
  while (!sample.isFull) {
    const begin = random.below(source.length - 4)
    const part = source.slice(begin, begin + random.between(4, 12))
    for (const [at, id] of part.entries())
      sample.push(id, at === 0 ? target.none | sentenceStart : at < 3 ? target.none : target.value)
  }
  return sample
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      tokenizer: { type: 'string', default: 'models/kvasir-tiny/tokenizer.json' },
      length: { type: 'string', default: '256' },
      facts: { type: 'string', default: '3-8' },
      repeats: { type: 'string', default: '0' },
      seed: { type: 'string', default: '1' },
      count: { type: 'string', default: 'Infinity' },
    },
  })
  const [low = 1, high = low] = values.facts.split('-').map(Number)
  const options: SampleOptions = { length: Number(values.length), facts: [low, high] }
  const encoder = createEncoder(JSON.parse(readFileSync(values.tokenizer, 'utf8')) as TokenizerFile)
  const random = createRandom(Number(values.seed))
  for (let left = Number(values.count); left > 0; left -= samplesPerWrite) {
    const chunks: Uint8Array[] = []
    for (let n = 0; n < Math.min(left, samplesPerWrite); n++) {
      const make = random.chance(Number(values.repeats)) ? repeatString : tellStory
      const { ids, flags } = make(random, encoder, options)
      chunks.push(new Uint8Array(ids.buffer), new Uint8Array(flags.buffer))
    }
    if (!process.stdout.write(Buffer.concat(chunks))) await once(process.stdout, 'drain')
  }
}

process.stdout.on('error', () => process.exit(0)) // the reader has seen enough
await main()
