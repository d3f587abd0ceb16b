/** A loaded model: checks calls, queues them, and keeps caches consistent. */
import { Tensor } from 'onnxruntime-node'
import type { CacheOptions, CacheShape, KvCache } from '../cache/contract.ts'
import type { PrefixStats, SharedPrefixes } from '../cache/prefix/shared-prefixes.ts'
import type { TieredStore } from '../cache/tiers/tiered-store.ts'
import type { Kernels } from '../kernels/contract.ts'
import type { ModelSpec } from '../onnx/index.ts'
import { createKvCache } from '../policies/index.ts'
import { checkKeys } from '../tensor/check.ts'
import { invalidArgument, KvasirError } from '../tensor/error.ts'
import { checkTokens, planSteps, type Step } from './batch.ts'
import { cacheKeys, resolveCacheOptions } from './cache-options.ts'
import type {
  BatchEntry,
  CacheReport,
  CausalLM,
  ChatOptions,
  Conversation,
  ConversationOptions,
  GenerateOptions,
  GenerateResult,
  GenerationDefaults,
  ModelDescription,
  PrefillOptions,
  PrefillResult,
  Prompt,
  RestoredCaches,
  SavedFile,
  StreamEvent,
  TextTokenizer,
} from './contract.ts'
import { CachedConversation } from './conversation.ts'
import { generateText, streamText } from './generate.ts'
import { holding } from './hold.ts'
import { feedTokens } from './prefill.ts'
import { checkPrefixChoice } from './prefix-choice.ts'
import { PrefixPools } from './prefix-pools.ts'
import { tokenizePrompt } from './prompt.ts'
import { TaskQueue } from './queue.ts'
import type { Runner } from './runner.ts'
import { checkPath, onlyOne, reportOf, SavedCaches } from './saved-caches.ts'
import type { Scorers } from './scorers.ts'
import { StatefulCache } from './stateful-cache.ts'

export interface ModelParts {
  readonly spec: ModelSpec
  readonly shape: CacheShape
  readonly tokenizer: TextTokenizer
  readonly kernels: Kernels
  readonly runner: Runner
  readonly chunkSize: number
  readonly chosen: Partial<CacheOptions>
  readonly scorers: Scorers
  readonly description: ModelDescription
  /** See fingerprint.ts. */
  readonly fingerprint: () => Promise<string>
  readonly generationDefaults: GenerationDefaults
  readonly prefixes?: SharedPrefixes | undefined
  /** For caches that bring evicted tokens back and name no store of their own. */
  readonly recallStore?: TieredStore | undefined
  readonly release: () => Promise<void>
}

export class LoadedModel implements CausalLM {
  readonly shape: CacheShape
  readonly vocabSize: number
  readonly tokenizer: TextTokenizer
  readonly cacheOptions: CacheOptions
  readonly generationDefaults: GenerationDefaults
  readonly chunkSize: number
  readonly prefixes: SharedPrefixes | undefined
  readonly #parts: ModelParts
  readonly #queue = new TaskQueue()
  readonly #pools: PrefixPools | undefined
  readonly #saved: SavedCaches
  /** Caches whose layers were left with differing lengths by a forward pass that failed. */
  readonly #broken = new WeakSet<KvCache>()
  #disposed: Promise<void> | undefined

  constructor(parts: ModelParts) {
    this.#parts = parts
    this.shape = parts.shape
    this.vocabSize = parts.spec.vocabSize
    this.tokenizer = parts.tokenizer
    this.chunkSize = parts.chunkSize
    this.prefixes = parts.prefixes
    this.#pools = parts.prefixes && new PrefixPools(parts.kernels)
    this.generationDefaults = parts.generationDefaults
    this.cacheOptions = resolveCacheOptions(parts.spec, parts.chosen)
    this.#saved = new SavedCaches(parts, (options) => this.#createCache(options))
  }

  createCache(options: Partial<CacheOptions> = {}): KvCache {
    checkKeys('runtime', 'a cache', options, cacheKeys)
    return this.#createCache(resolveCacheOptions(this.#parts.spec, { ...this.#parts.chosen, ...options }))
  }

  #createCache(given: CacheOptions): KvCache {
    const placed = this.#pools?.place(given) ?? given
    const options = this.#parts.scorers.resolve({ ...placed, ...this.#storeFor(given) })
    const cache = createKvCache(this.#parts.kernels, this.shape, options)
    return this.#parts.runner.states?.wrap(cache) ?? cache
  }

  #storeFor({ recall, recallStore = this.#parts.recallStore }: CacheOptions): { recallStore?: TieredStore } {
    return recall === undefined || !recallStore ? {} : { recallStore }
  }

  async forward(batch: readonly BatchEntry[]): Promise<Tensor> {
    return await this.#inTurn(() => this.#forward(batch))
  }

  /** After the calls that were made before. */
  async #inTurn<T>(task: () => Promise<T>): Promise<T> {
    if (this.#disposed) throw invalidArgument('runtime', 'expected a model in use, got one that was disposed')
    return await this.#queue.run(task)
  }

  async prefill(
    cache: KvCache,
    tokens: Int32Array | readonly number[],
    options: PrefillOptions = {},
  ): Promise<PrefillResult> {
    checkKeys('runtime', 'prefill', options, ['signal', 'onPrefill', 'prefixCache'])
    checkPrefixChoice(options.prefixCache)
    checkTokens(tokens, this.vocabSize)
    const { chunkSize, prefixes } = this
    const feeding = { ...options, chunkSize, prefixes, wantLogits: false }
    const fed = await holding(cache, () => feedTokens(this, cache, tokens, feeding))
    return { reusedTokens: fed.reusedTokens }
  }

  saveCache(cache: KvCache, path: string): Promise<SavedFile> {
    return this.saveCaches([cache], path)
  }

  async saveCaches(caches: readonly KvCache[], path: string, note?: unknown): Promise<SavedFile> {
    checkPath(path)
    return await this.#inTurn(() => {
      for (const cache of caches) this.#checkWhole(cache)
      return this.#saved.save(caches, path, note)
    })
  }

  async restoreCache(path: string, options?: Partial<CacheOptions>): Promise<KvCache> {
    return onlyOne(await this.restoreCaches(path, options), path)
  }

  restoreCaches(path: string, options: Partial<CacheOptions> = {}): Promise<RestoredCaches> {
    return this.#inTurn(() => this.#saved.restore(path, options))
  }

  explainCache(cache: KvCache): Promise<CacheReport> {
    return this.#inTurn(async () => reportOf(cache))
  }

  checkCache(cache: KvCache): Promise<void> {
    return this.#inTurn(async () => cache.checkIntegrity?.())
  }

  generate(prompt: Prompt, options: GenerateOptions = {}): Promise<GenerateResult> {
    return generateText(this, prompt, options)
  }

  stream(prompt: Prompt, options: GenerateOptions = {}): AsyncIterable<StreamEvent> {
    return streamText(this, prompt, options)
  }

  async tokenize(prompt: Prompt, options: ChatOptions = {}): Promise<number[]> {
    return tokenizePrompt(this.tokenizer, prompt, options)
  }

  startConversation(options: ConversationOptions = {}): Conversation {
    return new CachedConversation(this, options)
  }

  async prefixStats(): Promise<PrefixStats | undefined> {
    return this.prefixes?.stats()
  }

  describe(): ModelDescription {
    return this.#parts.description
  }

  /** Waits for the calls that were made before. */
  dispose(): Promise<void> {
    this.#disposed ??= this.#queue.run(() => this.#parts.release())
    return this.#disposed
  }

  async #forward(batch: readonly BatchEntry[]): Promise<Tensor> {
    const { steps, numRows } = planSteps(batch, {
      vocabSize: this.vocabSize,
      numLayers: this.shape.numLayers,
      chunkSize: this.chunkSize,
      isAlone: this.#parts.runner.states !== undefined,
    })
    for (const { cache } of batch) this.#checkWhole(cache)
    const logits = allocate(numRows, this.vocabSize)
    try {
      for (const step of steps) await this.#run(step, logits)
    } catch (error) {
      for (const { cache } of batch) if (!isWhole(cache)) this.#broken.add(cache)
      throw error
    }
    return new Tensor('float32', logits, [numRows, this.vocabSize])
  }

  /** What fails after the last layer leaves tokens in the caches all the same. */
  async #run(step: Step, logits: Float32Array): Promise<void> {
    try {
      await this.#parts.runner.run(step, logits)
    } finally {
      for (const { cache, start, end } of step.slices) cache.noteTokens?.(step.tokens.subarray(start, end))
    }
  }

  #checkWhole(cache: KvCache): void {
    // A fork of one that is broken is none that failed here; the layers before the one that failed have seen more.
    const isEven = cache.layer(0).info().seenTokens === cache.seenTokens
    if (isEven && !this.#broken.has(cache)) return
    if (!isWhole(cache)) {
      throw invalidArgument(
        'runtime',
        'expected a whole cache, got one that a failed forward left half written; reset it',
      )
    }
    this.#broken.delete(cache)
  }
}

function allocate(numRows: number, vocabSize: number): Float32Array {
  try {
    return new Float32Array(numRows * vocabSize)
  } catch (cause) {
    const message = `no memory for logits of ${numRows} tokens, ${vocabSize} numbers each; ask for fewer rows at once`
    throw new KvasirError('out-of-memory', 'runtime', message, { cause })
  }
}

/** Whether all layers have seen the same tokens. */
function isWhole(cache: KvCache): boolean {
  const seen = Array.from({ length: cache.numLayers }, (_, layer) => cache.layer(layer).info().seenTokens)
  return seen.every((count) => count === seen[0]) && (!(cache instanceof StatefulCache) || cache.isWhole)
}
