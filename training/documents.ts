/**
 * One evaluation document as JSON on standard output, for evaluate.py.
 *
 *     npx tsx training/documents.ts --tokens 65536 --facts 20 --seed 1000
 *
 * `ids` is the document; `keep` lists the positions that hold the final answer of some question; each question has its
 * `kind`, its prompt and its answer as ids (the answer up to and including the line break that ends it).
 */
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { encodeMarked } from './marked-tokens.ts'
import { answerEnd, createStory, questionPrefix } from './stories.ts'
import { createEncoder, type TokenizerFile } from './tokenizer.ts'

const { values } = parseArgs({
  options: {
    tokenizer: { type: 'string', default: 'models/kvasir-tiny/tokenizer.json' },
    tokens: { type: 'string', default: '2048' },
    facts: { type: 'string', default: '20' },
    moves: { type: 'string', default: '2' },
    placement: { type: 'string', default: 'start' },
    seed: { type: 'string', default: '1000' },
  },
})
const encoder = createEncoder(JSON.parse(readFileSync(values.tokenizer, 'utf8')) as TokenizerFile)
const story = createStory({
  seed: Number(values.seed),
  facts: Number(values.facts),
  moves: Number(values.moves),
  targetTokens: Number(values.tokens),
  countTokens: (text) => encoder.encode(text).length,
  placement: values.placement === 'spread' ? 'spread' : 'start',
})

const ids: number[] = []
const valuePositions = new Map<number, number[]>()
for (const segment of story.segments()) {
  const marked = encodeMarked(encoder, segment)
  if (segment.statement) {
    const positions = marked.isValue.flatMap((isValue, at) => (isValue ? [ids.length + at] : []))
    valuePositions.set(segment.statement.subject, positions)
  }
  ids.push(...marked.ids)
}
const questions = story.questions.map(({ kind, prompt, answer }) => ({
  kind,
  prompt: encoder.encode(questionPrefix + prompt),
  answer: encoder.encode(answer.text + answerEnd),
}))
process.stdout.write(JSON.stringify({ ids, keep: [...valuePositions.values()].flat(), questions }))
