/**
 * Just enough byte-level BPE to build the tokenizer of the bundled model and to encode training text fast.
 * Same pieces and merges as Hugging Face tokenizers with Sequence[Digits(individual), ByteLevel(use_regex)]; for
 * everything else the library uses @huggingface/tokenizers.
 */

/** GPT-2's pieces after each digit has been cut out: the digit alternative comes first, letters never meet digits. */
const piecePattern = /\p{N}|'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?![^\p{N}\s])|\s+/gu

export const endOfText = '<|endoftext|>'

/** The printable stand-in of each byte, as GPT-2 chose them: itself where printable, else the next free code point from 256. */
export const byteSymbols: readonly string[] = (() => {
  const isPrintable = (byte: number): boolean =>
    (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255)
  let next = 256
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(isPrintable(byte) ? byte : next++))
})()

const utf8 = new TextEncoder()

/** The pieces of a text that are encoded one by one. Their concatenation is the text. */
export function splitPieces(text: string): string[] {
  return text.match(piecePattern) ?? []
}

/** The symbols that a piece starts from, one a byte. */
export function toSymbols(piece: string): string[] {
  return Array.from(utf8.encode(piece), (byte) => byteSymbols[byte] as string)
}

/** The part of tokenizer.json that encoding needs. */
export interface TokenizerFile {
  readonly model: {
    readonly vocab: Readonly<Record<string, number>>
    readonly merges: readonly (readonly [string, string])[]
  }
}

export interface Encoder {
  encode(text: string): number[]
  readonly vocabSize: number
  readonly endOfTextId: number
}

export function createEncoder({ model }: TokenizerFile): Encoder {
  const vocab = new Map(Object.entries(model.vocab))
  const ranks = new Map(model.merges.map(([left, right], rank) => [`${left} ${right}`, rank]))
  const cache = new Map<string, readonly number[]>()
  const idOf = (symbol: string): number => {
    const id = vocab.get(symbol)
    if (id === undefined) throw new Error(`[training] no token "${symbol}" in the tokenizer`)
    return id
  }
  const encodePiece = (piece: string): readonly number[] => {
    let ids = cache.get(piece)
    if (ids === undefined) {
      ids = applyMerges(toSymbols(piece), ranks).map(idOf)
      cache.set(piece, ids)
    }
    return ids
  }
  return {
    encode: (text) => splitPieces(text).flatMap(encodePiece),
    vocabSize: vocab.size,
    endOfTextId: idOf(endOfText),
  }
}

/** Joins the neighbours of lowest rank until none has a rank. */
function applyMerges(symbols: readonly string[], ranks: ReadonlyMap<string, number>): readonly string[] {
  const rankAt = (at: number): number => ranks.get(`${symbols[at]} ${symbols[at + 1]}`) ?? Infinity
  let best = 0
  for (let at = 1; at < symbols.length - 1; at++) if (rankAt(at) < rankAt(best)) best = at
  if (symbols.length < 2 || rankAt(best) === Infinity) return symbols
  return applyMerges(mergeAt(symbols, symbols[best] as string, symbols[best + 1] as string), ranks)
}

/** Replaces every non-overlapping occurrence of the pair, from left to right. */
export function mergeAt(symbols: readonly string[], left: string, right: string): string[] {
  const merged: string[] = []
  for (let at = 0; at < symbols.length; at++) {
    if (symbols[at] === left && symbols[at + 1] === right) {
      merged.push(left + right)
      at++
    } else merged.push(symbols[at] as string)
  }
  return merged
}
