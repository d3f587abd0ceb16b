/** From marked text to token ids with one mark a token. */
import type { MarkedText } from './facts.ts'
import { type Encoder, splitPieces } from './tokenizer.ts'

export interface MarkedTokens {
  readonly ids: readonly number[]
  /** Whether each token lies in a value span. */
  readonly isValue: readonly boolean[]
}

/** Text is encoded piece by piece, so a token belongs to a value exactly if its piece overlaps one. */
export function encodeMarked(encoder: Encoder, { text, valueSpans }: MarkedText): MarkedTokens {
  const ids: number[] = []
  const isValue: boolean[] = []
  let begin = 0
  for (const piece of splitPieces(text)) {
    const end = begin + piece.length
    const inValue = valueSpans.some(([from, to]) => begin < to && from < end)
    for (const id of encoder.encode(piece)) {
      ids.push(id)
      isValue.push(inValue)
    }
    begin = end
  }
  return { ids, isValue }
}
