/**
 * A model for tests of decoding: its logits are a fixed function of all tokens before, and its cache is the list of
 * these tokens, so that a cache that holds a wrong token gives a wrong text. Token 0 ends a text, others are letters.
 */
import { Tensor } from 'onnxruntime-node'
import type { CacheInfo, KvCache, LayerCache } from '../../cache/contract.ts'
import type { CausalLM, ChatOptions, GenerateOptions, PrefillOptions, Prompt } from '../contract.ts'
import { streamText } from '../generate.ts'
import { feedTokens } from '../prefill.ts'
import { tokenizePrompt } from '../prompt.ts'
import type { Generator } from '../request.ts'

export interface TableModel extends Generator {
  /** The logits after these tokens `[V]`. */
  readonly logitsAfter: (tokens: readonly number[]) => Float32Array
  /** Number of tokens in each call of `forward`, for each entry. */
  readonly calls: number[][]
  /** Caches that were made or forked and not disposed. */
  readonly open: Set<TokenCache>
}

export interface TableOptions {
  readonly vocabSize?: number
  readonly seed?: number
  /** Whether caches can forget their newest tokens. */
  readonly canTruncate?: boolean
  /** Only so many of the last tokens matter (default: all). */
  readonly memory?: number
  /** Added to the logit of the end token (default 0). */
  readonly endBias?: number
}

export function createTableModel(options: TableOptions = {}): TableModel {
  const { vocabSize = 8, seed = 1, canTruncate = true, memory = Number.POSITIVE_INFINITY, endBias = 0 } = options
  const open = new Set<TokenCache>()
  const calls: number[][] = []
  const logitsAfter = (tokens: readonly number[]): Float32Array => {
    const logits = hashNumbers(tokens.slice(Math.max(0, tokens.length - memory)), seed, vocabSize)
    logits[0] = logits[0]! + endBias
    return logits
  }
  return {
    vocabSize,
    chunkSize: 4,
    open,
    calls,
    logitsAfter,
    createCache: () => new TokenCache(open, canTruncate),
    tokenizer: {
      encode: (text) => Array.from(text, (letter) => letter.charCodeAt(0) - 96),
      decode: (tokens) => tokens.map((token) => (token === 0 ? '' : String.fromCharCode(96 + token))).join(''),
      renderChat: (messages) => messages.map(({ content }) => content).join(''),
      eosTokens: [0],
    },
    async forward(batch) {
      calls.push(batch.map(({ tokens }) => tokens.length))
      const rows = batch.flatMap(({ cache, tokens, logitsOf = [tokens.length - 1] }) => {
        const before = (cache as TokenCache).tokens.slice()
        ;(cache as TokenCache).tokens.push(...tokens)
        return logitsOf.map((index) => logitsAfter([...before, ...tokens.slice(0, index + 1)]))
      })
      const data = new Float32Array(rows.length * vocabSize)
      for (const [i, row] of rows.entries()) data.set(row, i * vocabSize)
      return new Tensor('float32', data, [rows.length, vocabSize])
    },
  }
}

export class TokenCache implements KvCache {
  readonly numLayers = 1
  readonly truncate: ((length: number) => void) | undefined
  tokens: number[] = []
  readonly #open: Set<TokenCache>
  readonly #canTruncate: boolean

  constructor(open: Set<TokenCache>, canTruncate: boolean) {
    this.#open = open
    this.#canTruncate = canTruncate
    open.add(this)
    if (canTruncate) {
      this.truncate = (length) => {
        this.tokens.length = length
      }
    }
  }

  get seenTokens(): number {
    return this.tokens.length
  }

  getCacheInfo(): CacheInfo {
    const seenTokens = this.tokens.length
    const counts = { keptTokens: seenTokens, seenTokens, evictedTokens: 0 }
    return { ...counts, capacityUtilization: 1, bytes: seenTokens, fullBytes: seenTokens }
  }

  layer(): LayerCache {
    throw new Error('this cache has no layers')
  }

  reset(): void {
    this.tokens = []
  }

  fork(): TokenCache {
    const copy = new TokenCache(this.#open, this.#canTruncate)
    copy.tokens = [...this.tokens]
    return copy
  }

  dispose(): void {
    if (!this.#open.delete(this)) throw new Error('disposed twice')
  }
}

/** What conversations need of a model, on top of a table. */
export function asLanguageModel(table: TableModel): CausalLM {
  const model = {
    ...table,
    tokenize: async (prompt: Prompt, options?: ChatOptions) => tokenizePrompt(table.tokenizer, prompt, options),
    stream: (prompt: Prompt, options?: GenerateOptions) => streamText(table, prompt, options),
    prefill: async (cache: KvCache, tokens: Int32Array | readonly number[], options?: PrefillOptions) => {
      return await feedTokens(table, cache, tokens, { ...options, chunkSize: table.chunkSize, wantLogits: false })
    },
  }
  return model as unknown as CausalLM
}

/** Numbers in [-3, 3) that depend on every token. */
function hashNumbers(tokens: readonly number[], seed: number, count: number): Float32Array {
  let state = Math.imul(seed, 0x9e3779b1) | 0
  for (const token of tokens) state = mix(state ^ Math.imul(token + 1, 0x85ebca6b))
  return Float32Array.from(
    { length: count },
    (_, i) => ((mix(state + Math.imul(i + 1, 0x27d4eb2f)) >>> 0) / 2 ** 32) * 6 - 3,
  )
}

function mix(value: number): number {
  let mixed = Math.imul(value ^ (value >>> 16), 0x21f0aaad)
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97)
  return (mixed ^ (mixed >>> 15)) + 0x6d2b79f5
}
