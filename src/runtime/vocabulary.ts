/** The vocabulary of tokenizer.json, as grammars need it: the text of each token, and how it is written there. */
import type { Vocabulary } from './contract.ts'
import type { Json } from './json-file.ts'

/** Tokens of special meaning and ids without a token have no text. */
export function readVocabulary(definition: Json): Vocabulary {
  const { vocab = {} } = (definition.model ?? {}) as { vocab?: unknown }
  const tokens: string[] = []
  if (Array.isArray(vocab)) for (const [id, [token]] of (vocab as [string, number][]).entries()) tokens[id] = token
  else for (const [token, id] of Object.entries(vocab as Record<string, number>)) tokens[id] = token
  const added = (definition.added_tokens ?? []) as { id: number; content: string; special?: boolean }[]
  for (const { id, content, special } of added) tokens[id] = special === false ? content : ''
  const parts = JSON.stringify([definition.normalizer, definition.pre_tokenizer, definition.decoder])
  const isByteLevel = parts.includes('"type":"ByteLevel"')
  const isByteFallback = parts.includes('"type":"ByteFallback"')
  return {
    tokens: Array.from(tokens, (token) => token ?? ''),
    kind: isByteLevel ? 'byte_level' : isByteFallback ? 'byte_fallback' : 'raw',
    addsSpace: /"type":"Prepend"|"prepend_scheme":"(always|first)"|"add_dummy_prefix":true/.test(parts),
  }
}
