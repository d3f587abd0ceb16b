/** tokenizer.json through @huggingface/tokenizers, and which tokens end a text. */
import { join } from 'node:path'
import { Tokenizer } from '@huggingface/tokenizers'
import { readJson } from '../onnx/index.ts'
import { describe } from '../tensor/check.ts'
import { KvasirError } from '../tensor/error.ts'
import { openChatTemplates } from './chat-template.ts'
import type { TextTokenizer } from './contract.ts'
import { type Json, readOptionalJson } from './json-file.ts'
import { checkTokenizerFile } from './tokenizer-file.ts'
import { readVocabulary } from './vocabulary.ts'

/**
 * Opens the tokenizer of a model folder. Special tokens are left out of decoded text, and spaces are never cleaned up:
 * a text that is decoded piece by piece must not change afterwards.
 * @throws KvasirError `not-found` without tokenizer.json, `invalid-file` when it cannot be used
 */
export async function openTokenizer(folder: string, config: Json): Promise<TextTokenizer> {
  const file = join(folder, 'tokenizer.json')
  const definition = await readJson(file)
  checkTokenizerFile(definition, file)
  const settings = (await readOptionalJson(join(folder, 'tokenizer_config.json'))) ?? {}
  const generation = (await readOptionalJson(join(folder, 'generation_config.json'))) ?? {}
  const renderChat = await openChatTemplates(folder, settings)
  let tokenizer: Tokenizer
  try {
    tokenizer = new Tokenizer(definition, settings)
  } catch (cause) {
    const message = `${file}: expected a tokenizer that can be used: ${messageOf(cause)}`
    throw new KvasirError('invalid-file', 'tokenizer', message, { cause })
  }
  return {
    encode(text, { addSpecialTokens = true } = {}) {
      const { ids, tokens } = attempt(file, () => tokenizer.encode(text, { add_special_tokens: addSpecialTokens }))
      const unknown = ids.findIndex((id: unknown) => !Number.isInteger(id))
      if (unknown < 0) return ids
      const piece = JSON.stringify(tokens[unknown])
      throw new KvasirError('invalid-argument', 'tokenizer', `expected text of known tokens, got ${piece}`)
    },
    decode(tokens) {
      const known = tokens.filter((token) => tokenizer.id_to_token(token) !== undefined)
      if (known.length === 0) return ''
      const options = { skip_special_tokens: true, clean_up_tokenization_spaces: false }
      return attempt(file, () => tokenizer.decode(known, options))
    },
    renderChat,
    vocabulary: () => readVocabulary(definition),
    eosTokens:
      eosIds(join(folder, 'generation_config.json'), generation) ??
      eosIds(join(folder, 'config.json'), config) ??
      namedEos(settings.eos_token, tokenizer),
  }
}

/** What a library throws while it works is the file's fault: texts and ids are checked. */
function attempt<T>(file: string, work: () => T): T {
  try {
    return work()
  } catch (cause) {
    const message = `${file}: its steps can't be followed: ${messageOf(cause)}`
    throw new KvasirError('invalid-file', 'tokenizer', message, { cause })
  }
}

function messageOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause)
}

/** @throws KvasirError `invalid-file` for what is neither an id nor a list of ids */
function eosIds(file: string, { eos_token_id: value }: Json): readonly number[] | undefined {
  if (value == null) return undefined
  const ids: readonly unknown[] = Array.isArray(value) ? value : [value]
  const wrong = ids.findIndex((id) => !Number.isInteger(id) || (id as number) < 0)
  if (wrong < 0) return ids as readonly number[]
  const message = `${file}: expected an id or an array of ids for eos_token_id, got ${describe(ids[wrong])}`
  throw new KvasirError('invalid-file', 'tokenizer', message)
}

/** The id of a token that is given as its text, or as an object with it. */
function namedEos(value: unknown, tokenizer: Tokenizer): number[] {
  const content = typeof value === 'object' && value !== null ? (value as { content?: unknown }).content : value
  const id = typeof content === 'string' ? tokenizer.token_to_id(content) : undefined
  return id === undefined ? [] : [id]
}
