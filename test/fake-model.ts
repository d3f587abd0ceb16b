/**
 * A model without arithmetic, for tests of everything around one: its cache keeps text, and a function of the test says
 * what it answers. A window keeps the newest tokens, the other policies keep everything at a size that they claim.
 */
import { Tensor } from 'onnxruntime-common'
import type { CacheInfo, CacheOptions, KvCache, LayerCache } from '../src/cache/contract.ts'
import type {
  CausalLM,
  ChatMessage,
  GenerateOptions,
  GenerateResult,
  LoadOptions,
  Prompt,
  StreamEvent,
} from '../src/runtime/contract.ts'
import { CachedConversation } from '../src/runtime/conversation.ts'
import { KvasirError } from '../src/tensor/error.ts'

/** Given the text that is still known and the newest line, says what comes next. */
export type Respond = (known: string, prompt: string) => string

const bytesPerToken = 4

export function createFakeModel(respond: Respond, options: LoadOptions = {}): CausalLM {
  const cacheOptions: CacheOptions = { policy: options.policy ?? 'linear', window: options.window }
  const tokenizer = createWordTokenizer()
  const createCache = (overrides?: Partial<CacheOptions>): FakeCache =>
    new FakeCache({ ...cacheOptions, ...overrides }, [])
  const prefill: CausalLM['prefill'] = async (cache, tokens, { signal, onPrefill } = {}) => {
    if (signal?.aborted) throw new KvasirError('aborted', 'fake', 'interrupted')
    ;(cache as FakeCache).append(tokens)
    onPrefill?.(tokens.length, tokens.length)
    return { reusedTokens: 0 }
  }
  const tokenize = async (prompt: Prompt): Promise<number[]> => {
    if (typeof prompt === 'string') return tokenizer.encode(prompt)
    if (typeof prompt[0] !== 'object') return [...(prompt as readonly number[])]
    return tokenizer.encode(tokenizer.renderChat(prompt as readonly ChatMessage[]))
  }
  const generate = async (prompt: Prompt, given: GenerateOptions = {}): Promise<GenerateResult> => {
    const tokens = await tokenize(prompt)
    if (tokens.length === 0)
      throw new KvasirError('invalid-argument', 'fake', 'expected a prompt of at least one token')
    const cache = (given.cache as FakeCache | undefined) ?? createCache()
    const known = tokenizer.decode(cache.tokens)
    const isAborted = given.signal?.aborted === true
    if (!isAborted) await prefill(cache, tokens, given)
    const stop = [given.stop ?? []].flat()
    const full = isAborted ? '' : respond(known, tokenizer.decode(tokens))
    const end = Math.min(...stop.map((text) => full.indexOf(text)).filter((at) => at >= 0), full.length)
    const written = tokenizer.encode(full.slice(0, end)).slice(0, given.maxNewTokens ?? 128)
    const finishReason = isAborted ? ('aborted' as const) : ('stop' as const)
    const choice = { text: tokenizer.decode(written), tokens: written, finishReason }
    return {
      ...choice,
      choices: [choice],
      promptTokens: tokens.length,
      generatedTokens: written.length,
      reusedTokens: 0,
      prefillMs: 1,
      decodeMs: 2,
      kv: cache.getCacheInfo(),
    }
  }
  const model: CausalLM = {
    shape: {
      numLayers: 1,
      layers: [{ numHeads: 1, numKvHeads: 1, headDim: 1, valueDim: 1 }],
      hasImportance: true,
    },
    vocabSize: 1000,
    tokenizer,
    cacheOptions,
    createCache,
    forward: async () => new Tensor('float32', new Float32Array(1000), [1, 1000]),
    generationDefaults: {},
    prefill,
    saveCache: withoutFiles,
    restoreCache: withoutFiles,
    saveCaches: withoutFiles,
    restoreCaches: withoutFiles,
    async explainCache(cache) {
      const info = cache.getCacheInfo()
      const first = info.seenTokens - info.keptTokens
      const positions = Array.from({ length: info.keptTokens }, (_, n) => first + n)
      return { info, layers: [{ heads: [{ positions, scores: positions.map(() => null) }], evicted: [] }] }
    },
    checkCache: async () => {},
    tokenize,
    generate,
    async *stream(prompt, given): AsyncGenerator<StreamEvent> {
      const result = await generate(prompt, given)
      for (const token of result.tokens) yield { type: 'token', index: 0, token, text: tokenizer.decode([token]) }
      yield { type: 'done', result }
    },
    prefixStats: async () => undefined,
    describe: () => ({
      architecture: 'fake',
      parameters: 12,
      weightBytes: 48,
      segments: [{ name: 'segment 0', nodes: 3, weightBytes: 48 }],
      attention: [{ layer: 0, node: 'attention 0', numHeads: 1, numKvHeads: 1, headDim: 1 }],
      weights: '0'.repeat(32),
      kvBytesPerToken: bytesPerToken,
      weightFiles: [{ file: '/fake/model.safetensors', bytes: 48 }],
      policies: [{ policy: 'full', why: 'nothing else is known' }],
      backend: 'nothing',
    }),
    startConversation: (options) => new CachedConversation(model, options),
    dispose: async () => {},
  }
  return model
}

async function withoutFiles(): Promise<never> {
  throw new KvasirError('unsupported', 'fake', 'expected a model whose caches can be looked into')
}

class FakeCache implements KvCache {
  readonly numLayers = 1
  seenTokens = 0
  readonly #options: CacheOptions
  tokens: number[]

  constructor(options: CacheOptions, tokens: readonly number[], seenTokens = tokens.length) {
    this.#options = options
    this.tokens = [...tokens]
    this.seenTokens = seenTokens
  }

  append(tokens: Int32Array | readonly number[]): void {
    this.seenTokens += tokens.length
    const all = [...this.tokens, ...tokens]
    this.tokens = this.#options.policy === 'window' ? all.slice(-(this.#options.window ?? 1)) : all
  }

  getCacheInfo(): CacheInfo {
    const { policy, window = 1 } = this.#options
    const rows = policy === 'full' ? this.seenTokens : window
    const keptTokens = Math.min(rows, this.seenTokens)
    return {
      keptTokens,
      seenTokens: this.seenTokens,
      capacityUtilization: keptTokens / rows,
      bytes: rows * bytesPerToken,
      fullBytes: this.seenTokens * bytesPerToken,
      evictedTokens: this.seenTokens - keptTokens,
    }
  }

  fork(): FakeCache {
    return new FakeCache(this.#options, this.tokens, this.seenTokens)
  }

  layer(): LayerCache {
    throw new Error('the fake cache has no layers')
  }

  reset(): void {
    this.tokens = []
    this.seenTokens = 0
  }

  dispose(): void {}
}

/** Words with the space before them, and single other characters; ids are given out as words come up. */
function createWordTokenizer(): CausalLM['tokenizer'] {
  const words: string[] = []
  const ids = new Map<string, number>()
  const idOf = (word: string): number => {
    const id = ids.get(word) ?? words.push(word) - 1
    ids.set(word, id)
    return id
  }
  return {
    encode: (text) => (text.match(/ ?\w+|[^\w]/g) ?? []).map(idOf),
    decode: (tokens) => tokens.map((token) => words[token]).join(''),
    renderChat: (messages) => messages.map(({ role, content }) => `${role}: ${content}\n`).join(''),
    eosTokens: [],
  }
}
