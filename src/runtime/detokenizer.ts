/** Text from tokens as they come: a character whose bytes are spread over tokens appears when its last byte does. */
import type { TextTokenizer } from './contract.ts'

/** Bytes that are no character yet decode to this. */
const replacement = '\ufffd'

/** After this many tokens without a whole character the bytes are not going to become one: they are shown as they are. */
const maxPending = 8

export interface Detokenizer {
  /** The text that this token completes; often '' inside a character. */
  push(token: number): string
  /** The text of unfinished bytes, as replacement characters. */
  flush(): string
}

/**
 * Decodes windows of tokens instead of the whole text, so a step costs the same at any length. A window begins one
 * shown piece back, because decoders treat the first token of a text differently (leading space).
 */
export function createDetokenizer(tokenizer: Pick<TextTokenizer, 'decode'>): Detokenizer {
  let context: number[] = []
  let pending: number[] = []
  const take = (): string => {
    const text = tokenizer.decode([...context, ...pending]).slice(tokenizer.decode(context).length)
    context = pending
    pending = []
    return text
  }
  return {
    push(token) {
      pending.push(token)
      const isUnfinished = tokenizer.decode([...context, ...pending]).endsWith(replacement)
      return isUnfinished && pending.length < maxPending ? '' : take()
    },
    flush: () => (pending.length > 0 ? take() : ''),
  }
}
