import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { endToken, writeDogeCheckpoint } from '../onnx/testing/doge-checkpoint.ts'
import { openTokenizer } from './tokenizer.ts'

let folder = ''
beforeEach(async () => {
  folder = (await writeDogeCheckpoint({ layers: 1 })).folder
})
afterEach(() => rm(folder, { recursive: true }))

const write = (name: string, value: unknown): Promise<void> => writeFile(join(folder, name), JSON.stringify(value))

describe('the tokenizer', () => {
  it('gives back any text, spaces and all', async () => {
    const tokenizer = await openTokenizer(folder, {})
    for (const text of ['Hello , world .', ' ß😀\n\t x', "do n't"]) {
      expect(tokenizer.decode(tokenizer.encode(text))).toBe(text)
    }
    expect(tokenizer.encode('Aß')).toEqual([65, 0xc3, 0x9f])
  })

  it('leaves out special tokens and tokens without a text', async () => {
    const tokenizer = await openTokenizer(folder, {})
    expect(tokenizer.decode([72, endToken, 105, 259])).toBe('Hi')
    expect([tokenizer.decode([endToken]), tokenizer.decode([])]).toEqual(['', ''])
  })

  it('reads special tokens in a text', async () => {
    expect((await openTokenizer(folder, {})).encode('a<end>')).toEqual([97, endToken])
  })

  it('finds the tokens that end a text: generation_config.json, then config.json, then tokenizer_config.json', async () => {
    const eos = async (config: Record<string, unknown>) => (await openTokenizer(folder, config)).eosTokens
    await write('tokenizer_config.json', { eos_token: { content: '<end>' } })
    await write('generation_config.json', { eos_token_id: [7, 8] })
    expect(await eos({ eos_token_id: 3 })).toEqual([7, 8])
    await rm(join(folder, 'generation_config.json'))
    expect(await eos({ eos_token_id: 3 })).toEqual([3])
    expect(await eos({})).toEqual([endToken])
    await write('tokenizer_config.json', { eos_token: '<end>' })
    expect(await eos({})).toEqual([endToken])
    await rm(join(folder, 'tokenizer_config.json'))
    expect(await eos({})).toEqual([])
  })

  it('refuses ends of a text that are no tokens, naming the file', async () => {
    await rm(join(folder, 'generation_config.json'))
    for (const [value, got] of [
      ['x', '"x"'],
      [[3, '4'], '"4"'],
      [1.5, '1.5'],
      [{ id: 3 }, 'an object (Object)'],
      [[-1], '-1'],
    ] as const) {
      const message = `expected an id or an array of ids for eos_token_id, got ${got}`
      const refused = { code: 'invalid-file', message: expect.stringContaining(`config.json: ${message}`) }
      await expect(openTokenizer(folder, { eos_token_id: value })).rejects.toMatchObject(refused)
      await write('generation_config.json', { eos_token_id: value })
      await expect(openTokenizer(folder, {})).rejects.toThrow(`generation_config.json: ${message}`)
      await rm(join(folder, 'generation_config.json'))
    }
    await write('generation_config.json', { eos_token_id: null }) // says nothing
    expect((await openTokenizer(folder, { eos_token_id: [] })).eosTokens).toEqual([])
  })

  it('is refused when a file is missing or broken', async () => {
    await writeFile(join(folder, 'generation_config.json'), '{')
    await expect(openTokenizer(folder, {})).rejects.toThrow('generation_config.json: expected JSON')
    await rm(join(folder, 'generation_config.json'))
    await write('tokenizer.json', { model: { type: 'Nonsense', vocab: {} } })
    await expect(openTokenizer(folder, {})).rejects.toThrow('tokenizer.json: expected a tokenizer')
    for (const [model, added, message] of [
      [{ type: 'BPE' }, [], 'expected an object for model.vocab, got undefined'],
      [
        { type: 'BPE', vocab: { a: 2 ** 40 } },
        [],
        'expected an id in 0..16777215 for the token "a", got 1099511627776',
      ],
      [{ type: 'BPE', vocab: { a: '0' } }, [], 'for the token "a", got "0"'],
      [{ type: 'Unigram', vocab: [['a']] }, [], 'expected a token and its score for model.vocab[0]'],
      [{ type: 'BPE', vocab: {} }, [], 'expected an array for model.merges, got undefined'],
      [{ vocab: {}, merges: 'a b' }, [], 'expected an array for model.merges, got "a b"'],
      [{ type: 'BPE', vocab: {}, merges: ['ab'] }, [], 'with a space between, as "a b", for model.merges[0], got "ab"'],
      [{ type: 'BPE', vocab: {}, merges: ['a b', 'a b c'] }, [], 'model.merges[1], like those before it, got "a b c"'],
      [{ type: 'BPE', vocab: {}, merges: ['a b', ['a', 'b']] }, [], 'for model.merges[1], like those before it'],
      [
        { type: 'BPE', vocab: {}, merges: [['a', 'b'], ['a']] },
        [],
        'a pair of tokens, as ["a", "b"], for model.merges[1]',
      ],
      [{ type: 'BPE', vocab: {}, merges: [['a', 7]] }, [], 'for model.merges[0], got an array of 2'],
      [
        { type: 'BPE', vocab: {}, merges: [['a', 'b'], 'a b'] },
        [],
        'for model.merges[1], like those before it, got "a b"',
      ],
      [{ type: 'BPE', vocab: {}, merges: [null] }, [], 'for model.merges[0], got null'],
      [{ type: 'BPE', vocab: {} }, [{ id: 0 }], 'expected a text for added_tokens[0].content'],
    ] as const) {
      await write('tokenizer.json', { model, added_tokens: added })
      await expect(openTokenizer(folder, {})).rejects.toThrow(message)
    }
    await write('tokenizer.json', null)
    await expect(openTokenizer(folder, {})).rejects.toMatchObject({ code: 'invalid-file' })
    await rm(join(folder, 'tokenizer.json'))
    await expect(openTokenizer(folder, {})).rejects.toMatchObject({ code: 'not-found' })
  })
})
