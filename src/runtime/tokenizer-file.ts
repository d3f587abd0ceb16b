/** What tokenizer.json must hold for anyone to read it: checked before a library takes it apart. */
import { describe } from '../tensor/check.ts'
import { KvasirError } from '../tensor/error.ts'
import type { Json } from './json-file.ts'

/** More tokens than any vocabulary has; an id decides how long lists by id are. */
const mostTokens = 1 << 24

/** @throws KvasirError `invalid-file` naming what is wrong */
export function checkTokenizerFile(definition: unknown, file: string): asserts definition is Json {
  const { model, added_tokens: added = [] } = objectAt(definition, 'a tokenizer', file)
  const { vocab } = objectAt(model, 'model', file)
  if (Array.isArray(vocab)) for (const [i, pair] of vocab.entries()) checkPair(pair, `model.vocab[${i}]`, file)
  else for (const [token, id] of Object.entries(objectAt(vocab, 'model.vocab', file))) checkId(id, token, file)
  if (!Array.isArray(added)) throw wrong(file, 'an array for added_tokens', added)
  for (const [i, item] of added.entries()) {
    const { id, content } = objectAt(item, `added_tokens[${i}]`, file)
    if (typeof content !== 'string') throw wrong(file, `a text for added_tokens[${i}].content`, content)
    checkId(id, content, file)
  }
  const { type, merges } = model as Json
  if (type === 'BPE' || merges != null) checkMerges(merges, file)
}

/** Pairs of tokens, or texts of two tokens with a space between; the library reads all of them as the first. */
function checkMerges(merges: unknown, file: string): void {
  if (!Array.isArray(merges)) throw wrong(file, 'an array for model.merges', merges)
  const arePairs = Array.isArray(merges[0])
  const expected = arePairs ? 'a pair of tokens, as ["a", "b"]' : 'two tokens with a space between, as "a b"'
  for (const [i, merge] of (merges as unknown[]).entries()) {
    const parts: unknown = !arePairs && typeof merge === 'string' ? merge.split(' ') : arePairs && merge
    const isPair = Array.isArray(parts) && parts.length === 2
    if (isPair && parts.every((part) => typeof part === 'string' && part !== '')) continue
    throw wrong(file, `${expected}, for model.merges[${i}]${i > 0 ? ', like those before it' : ''}`, merge)
  }
}

/** Unigram: a token and its score. */
function checkPair(pair: unknown, what: string, file: string): void {
  const [token, score] = Array.isArray(pair) ? pair : []
  if (typeof token !== 'string' || typeof score !== 'number')
    throw wrong(file, `a token and its score for ${what}`, pair)
}

function checkId(id: unknown, token: string, file: string): void {
  if (Number.isInteger(id) && (id as number) >= 0 && (id as number) < mostTokens) return
  throw wrong(file, `an id in 0..${mostTokens - 1} for the token ${describe(token)}`, id)
}

function objectAt(value: unknown, what: string, file: string): Json {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Json
  throw wrong(file, `an object for ${what}`, value)
}

function wrong(file: string, expected: string, got: unknown): KvasirError {
  return new KvasirError('invalid-file', 'tokenizer', `${file}: expected ${expected}, got ${describe(got)}`)
}
