/** Answers of a given form, from models whose weights are random: only the grammar can make them fit. */
import { readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type DogeCheckpoint, endToken, writeDogeCheckpoint } from '../onnx/testing/doge-checkpoint.ts'
import type { CausalLM, GenerateOptions, ResponseFormat } from './contract.ts'
import { loadModel } from './load-model.ts'
import { openTokenizer } from './tokenizer.ts'
import { readVocabulary } from './vocabulary.ts'

let checkpoint: DogeCheckpoint
let model: CausalLM
beforeAll(async () => {
  checkpoint = await writeDogeCheckpoint({ tied: false })
  model = await loadModel(checkpoint.folder, { threads: 1 })
})
afterAll(async () => {
  await model.dispose()
  await rm(checkpoint.folder, { recursive: true })
})

const jsonSchema = {
  type: 'object',
  properties: {
    color: { enum: ['red', 'grün', '青'] },
    sizes: { type: 'array', items: { enum: [1, 22, 333] }, minItems: 1, maxItems: 3 },
    isNew: { type: 'boolean' },
  },
  required: ['color', 'sizes', 'isNew'],
  additionalProperties: false,
}

const write = (responseFormat: ResponseFormat, options: GenerateOptions = {}) =>
  model.generate('Answer: ', { temperature: 3, maxNewTokens: 300, responseFormat, ...options })

describe('a response format', () => {
  it('makes JSON of a schema, and an end', async () => {
    for (const seed of [1, 2, 3, 4, 5]) {
      const { text, finishReason, tokens } = await write({ jsonSchema }, { seed })
      const { color, sizes, isNew } = JSON.parse(text) as { color: string; sizes: number[]; isNew: boolean }
      expect(finishReason).toBe('stop')
      expect(tokens.at(-1)).toBe(endToken)
      expect(['red', 'grün', '青']).toContain(color)
      expect(sizes.every((size) => [1, 22, 333].includes(size)) && sizes.length > 0 && sizes.length <= 3).toBe(true)
      expect(typeof isNew).toBe('boolean')
    }
    // Without it the same draws are no JSON.
    const { text } = await model.generate('Answer: ', { temperature: 3, maxNewTokens: 300, seed: 1 })
    expect(() => JSON.parse(text)).toThrow()
  })

  it('lets no model write white space for ever', async () => {
    const schema = { type: 'object', properties: { n: { enum: [17] } }, required: ['n'] }
    const { text } = await write({ jsonSchema: schema }, { temperature: 0, logitBias: { 32: 100 } })
    expect(text).toMatch(/^\{ {16}"n" {16}: {16}17 {16}\}$/)
  })

  it('makes a text of a grammar, for several texts and for drafts', async () => {
    const grammar = 'root ::= ("yes" | "no") (", " ("yes" | "no"))*'
    const { choices } = await write({ grammar }, { n: 3, seed: 7 })
    for (const { text } of choices) expect(text).toMatch(/^(yes|no)(, (yes|no))*$/)
    const plain = await write({ grammar }, { seed: 7 })
    const drafted = await write({ grammar }, { seed: 7, promptLookupTokens: 4 })
    expect(drafted.text).toBe(plain.text)
    const greedy = await write({ grammar }, { temperature: 0, maxNewTokens: 40 })
    expect(greedy.text).toMatch(/^(yes|no)/)
  })

  it('makes any JSON', async () => {
    const { text, finishReason } = await write('json', {
      seed: 1,
      logitBias: { 34: 8, 125: 20, 93: 20 },
      maxNewTokens: 400,
    })
    if (finishReason === 'stop') expect(typeof JSON.parse(text)).toBe('object')
    expect(text).toMatch(/^\s*[[{]/)
  })

  const refused: [unknown, GenerateOptions, string][] = [
    ['xml', {}, 'expected "json", { jsonSchema: {...} } or { grammar: "..." } for responseFormat, got "xml"'],
    [{ jsonSchema: 'x' }, {}, 'for responseFormat'],
    [{ grammar: 'root ::= (' }, {}, 'expected a schema or grammar that can be compiled'],
    ['json', { numBeams: 2, temperature: 0 }, 'expected either numBeams or responseFormat'],
    ['json', { ignoreEos: true }, 'expected responseFormat without ignoreEos'],
  ]
  it.each(refused)('refuses %j with %j', async (format, options, message) => {
    await expect(write(format as ResponseFormat, options)).rejects.toThrow(message)
    await expect(write(format as ResponseFormat, options)).rejects.toMatchObject({ code: 'invalid-argument' })
  })
})

describe('the vocabulary', () => {
  it('is that of tokenizer.json, special tokens without a text', async () => {
    const definition = JSON.parse(await readFile(join(checkpoint.folder, 'tokenizer.json'), 'utf8'))
    const { tokens, kind, addsSpace } = readVocabulary(definition)
    expect({ kind, addsSpace, length: tokens.length }).toEqual({ kind: 'byte_level', addsSpace: false, length: 257 })
    expect([tokens[65], tokens[32], tokens[endToken]]).toEqual(['A', 'Ġ', ''])
    expect((await openTokenizer(checkpoint.folder, {})).vocabulary!()).toEqual({ tokens, kind, addsSpace })
    const unigram = {
      model: {
        vocab: [
          ['<unk>', 0],
          ['▁a', -1],
        ],
      },
      decoder: { type: 'ByteFallback' },
      pre_tokenizer: { type: 'Metaspace', prepend_scheme: 'first' },
    }
    expect(readVocabulary(unigram)).toEqual({ tokens: ['<unk>', '▁a'], kind: 'byte_fallback', addsSpace: true })
    const words = {
      model: { vocab: { a: 2 } },
      added_tokens: [
        { id: 0, content: '<b>', special: false },
        { id: 1, content: '<c>', special: true },
      ],
    }
    expect(readVocabulary(words)).toEqual({ tokens: ['<b>', '', 'a'], kind: 'raw', addsSpace: false })
  })
})
