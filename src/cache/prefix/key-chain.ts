/**
 * Names of the beginnings of a text: the key of block i is SHA-256 over the key before it and the tokens of the block,
 * so that it stands for all tokens up to there and for the seed, which says what else the rows depend on.
 *
 * Equal keys of different texts are not to be expected; should they come, nothing goes wrong: what is kept under a key
 * holds the tokens themselves, which are compared.
 */
import { createHash } from 'node:crypto'

export class KeyChain {
  readonly #seed: Buffer
  readonly #blockTokens: number
  /** Of whole blocks. */
  #tokens = new Int32Array(0)
  readonly #hashes: Buffer[] = []

  constructor(seed: string, blockTokens: number) {
    this.#seed = createHash('sha256').update(seed).digest()
    this.#blockTokens = blockTokens
  }

  /** The keys of all whole blocks of a text. What it has in common with the text of the last call is not hashed again. */
  keysOf(tokens: ArrayLike<number>): string[] {
    const size = this.#blockTokens
    const count = Math.floor(tokens.length / size)
    const text = new Int32Array(tokens).subarray(0, count * size)
    let common = 0
    while (common < Math.min(text.length, this.#tokens.length) && text[common] === this.#tokens[common]) common++
    this.#hashes.length = Math.min(this.#hashes.length, Math.floor(common / size))
    for (let i = this.#hashes.length; i < count; i++) {
      const block = text.subarray(i * size, (i + 1) * size)
      const bytes = new Uint8Array(block.buffer, block.byteOffset, block.byteLength)
      const hash = createHash('sha256').update(this.#hashes[i - 1] ?? this.#seed)
      this.#hashes.push(hash.update(bytes).digest())
    }
    this.#tokens = text
    return this.#hashes.map((hash) => hash.toString('hex'))
  }
}
