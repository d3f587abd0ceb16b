/** The public types of a loaded model: what `loadModel` takes and gives. */
import type { Tensor } from 'onnxruntime-common'
import type { CacheInfo, CacheOptions, CacheShape, KvCache, LayerExplanation, PolicyName } from '../cache/contract.ts'
import type { PrefixCacheOptions } from '../cache/prefix/open-prefixes.ts'
import type { PrefixStats } from '../cache/prefix/shared-prefixes.ts'
import type { TierOptions } from '../cache/tiers/contract.ts'
import type { BackendName } from '../kernels/contract.ts'
import type { OnnxDtype } from '../onnx/index.ts'
import type { Conversation, ConversationOptions } from './conversation-contract.ts'
import type {
  ChatMessage,
  ChatOptions,
  GenerateOptions,
  GenerateResult,
  GenerationDefaults,
  PrefixChoice,
  Prompt,
  StreamEvent,
} from './generation-contract.ts'

export type { PrefixCacheOptions } from '../cache/prefix/open-prefixes.ts'
export type { PrefixStats } from '../cache/prefix/shared-prefixes.ts'
export type * from './conversation-contract.ts'
export type * from './generation-contract.ts'

export interface LoadOptions extends Partial<CacheOptions> {
  /** Kernels for attention (default: best available; `KVASIR_BACKEND` overrides the default). */
  readonly backend?: BackendName
  /** Threads of the kernels and of ONNX Runtime (default: all cores). */
  readonly threads?: number
  /** Tokens that are run through the model at once while a prompt is read (default 512): bounds scratch memory. */
  readonly chunkSize?: number
  /** Build MatMulNBits weights of this width, once, into a cache folder. */
  readonly quantize?: 'int8' | 'int4'
  /** Which ONNX file of a folder as published for transformers.js: `q4` is onnx/model_q4.onnx. */
  readonly dtype?: OnnxDtype
  /**
   * Whether the model runs in a thread of its own (default true), so that the caller's event loop stays free. In the
   * caller's thread (`false`) a call starts sooner and the layers of caches can be looked into.
   */
  readonly worker?: boolean
  /** Branch, tag or commit of a model of the hub (default `main`). */
  readonly revision?: string
  /** Keeps what prompts that begin alike have in common, in RAM and as wished on disk and in Redis (docs/prefixes.md). */
  readonly prefixCache?: PrefixCacheOptions
  /**
   * Where evicted tokens of its caches go, with `recall`: RAM, disk, Redis, fastest first (docs/caches.md). Opened in the
   * thread of the model and closed with it.
   */
  readonly recallTiers?: readonly TierOptions[]
  /** Called while files of a model of the hub are downloaded. */
  readonly onDownload?: (progress: DownloadProgress) => void
  /** Stops a download; what is there is continued the next time. */
  readonly signal?: AbortSignal
}

export interface DownloadProgress {
  /** The file that is being read. */
  readonly file: string
  readonly fileBytes: number
  readonly fileSize: number
  /** Of all files of the model, those included that were there before. */
  readonly bytes: number
  readonly size: number
}

/** Some new tokens of one sequence in a flat list. */
export interface BatchEntry {
  readonly cache: KvCache
  readonly tokens: Int32Array | readonly number[]
  /** Which of these tokens' next-token logits are wanted, as indices into `tokens` (default: the last). */
  readonly logitsOf?: readonly number[]
  /**
   * Tokens of the same text that later calls bring (default 0): tables of positions that change with length are those
   * of the whole text, however it is divided.
   */
  readonly following?: number
}

/** A loaded model. */
export interface CausalLM {
  readonly shape: CacheShape
  readonly vocabSize: number
  readonly tokenizer: TextTokenizer
  /** What the model's options resolved to. */
  readonly cacheOptions: CacheOptions
  /** Options of `generate` that generation_config.json sets. */
  readonly generationDefaults: GenerationDefaults
  /** A fresh, empty cache for one sequence; `options` override those of `loadModel`. */
  createCache(options?: Partial<CacheOptions>): KvCache
  /**
   * Runs all tokens of all entries as one flat list, `chunkSize` at a time. Logits: f32 `[rows wanted, vocabSize]`,
   * entries in order, rows in the order of `logitsOf`. Calls are queued: each runs alone. What a pool has no pages for
   * is refused with `out-of-memory` before the first layer takes a token in (in a call of more than `chunkSize` tokens:
   * before the first layer of those `chunkSize`; `seenTokens` says which are in). When a call fails in the middle for
   * other reasons, a cache whose layers then differ is refused by later calls until it is reset.
   */
  forward(batch: readonly BatchEntry[]): Promise<Tensor>
  /** Feeds tokens in chunks without asking for logits. Throws `aborted` between chunks. */
  prefill(cache: KvCache, tokens: Int32Array | readonly number[], options?: PrefillOptions): Promise<PrefillResult>
  /**
   * Writes a cache to a file: token ids, the state of every layer, and of which model and with which options it is. The
   * file is there whole or not at all; calls made before are waited for.
   * @throws KvasirError `invalid-argument` when the place can't be written to
   */
  saveCache(cache: KvCache, path: string): Promise<SavedFile>
  /**
   * A cache from a file of `saveCache`, which goes on just as the one that was written. Options that `loadModel` or
   * `options` name must be those of the file, all others are taken from it; `storage`, `pageSize` and `pool` are free.
   * @throws KvasirError `invalid-file` for a file that is damaged or not whole, `invalid-argument` for one of another
   * model or with other options; messages say what differs
   */
  restoreCache(path: string, options?: Partial<CacheOptions>): Promise<KvCache>
  /** Several caches in one file, with a note of one's own (JSON). */
  saveCaches(caches: readonly KvCache[], path: string, note?: unknown): Promise<SavedFile>
  restoreCaches(path: string, options?: Partial<CacheOptions>): Promise<RestoredCaches>
  /** Which tokens each layer and head of a cache keeps and why, wherever the cache lives. */
  explainCache(cache: KvCache): Promise<CacheReport>
  /**
   * `checkIntegrity` of a cache, wherever it lives.
   * @throws KvasirError `internal` when a count is wrong
   */
  checkCache(cache: KvCache): Promise<void>
  generate(prompt: Prompt, options?: GenerateOptions): Promise<GenerateResult>
  /** Computes as it is read: a step of the loop is a step of the model. Beams have no stream. */
  stream(prompt: Prompt, options?: GenerateOptions): AsyncIterable<StreamEvent>
  /** The tokens that `generate` reads for a prompt. */
  tokenize(prompt: Prompt, options?: ChatOptions): Promise<number[]>
  /** A conversation whose turns reuse what the cache holds of the earlier ones. */
  startConversation(options?: ConversationOptions): Conversation
  /** What `prefixCache` has done since the model was loaded; undefined without. */
  prefixStats(): Promise<PrefixStats | undefined>
  describe(): ModelDescription
  dispose(): Promise<void>
}

export interface PrefillOptions {
  readonly signal?: AbortSignal
  /** As that of `generate`. */
  readonly prefixCache?: PrefixChoice
  readonly onPrefill?: (readTokens: number, promptTokens: number) => void
}

export interface PrefillResult {
  /** Tokens that were not computed, but taken from what `prefixCache` keeps. */
  readonly reusedTokens: number
}

export interface SavedFile {
  readonly bytes: number
}

export interface RestoredCaches {
  readonly caches: readonly KvCache[]
  /** The ids of the tokens that each of them holds. */
  readonly tokens: readonly Int32Array[]
  /** What was given to `saveCaches`. */
  readonly note: unknown
}

export interface CacheReport {
  readonly info: CacheInfo
  /** `[L]` */
  readonly layers: readonly LayerExplanation[]
  /** The ids of all tokens seen, where they are known. */
  readonly tokens?: Int32Array
}

export interface TextTokenizer {
  /** `addSpecialTokens` (default true): what the tokenizer puts around a text, such as BOS. */
  encode(text: string, options?: { readonly addSpecialTokens?: boolean }): number[]
  /** Special tokens are left out. */
  decode(tokens: readonly number[]): string
  /**
   * The text that the model's chat template makes of a conversation.
   * @throws KvasirError `unsupported` when the model has none, `invalid-argument` when it refuses the conversation
   */
  renderChat(messages: readonly ChatMessage[], options?: ChatOptions): string
  readonly eosTokens: readonly number[]
  /** What grammars need; absent for tokenizers that don't know. */
  vocabulary?(): Vocabulary
}

export interface Vocabulary {
  /** By id, as tokenizer.json has them; '' for special tokens. */
  readonly tokens: readonly string[]
  /** How bytes are written in them. */
  readonly kind: 'byte_level' | 'byte_fallback' | 'raw'
  /** Whether a space is put before a text. */
  readonly addsSpace: boolean
}

/** A policy that suits a model. */
export interface PolicyAdvice {
  readonly policy: PolicyName
  readonly window?: number
  readonly why: string
}

/** What `kvasir inspect` prints. */
export interface ModelDescription {
  readonly architecture: string
  readonly parameters: number
  readonly weightBytes: number
  readonly segments: readonly { readonly name: string; readonly nodes: number; readonly weightBytes: number }[]
  readonly attention: readonly {
    readonly layer: number
    readonly node: string
    readonly numHeads: number
    readonly numKvHeads: number
    readonly headDim: number
    /** Keys that a query sees, where that is not all before it. */
    readonly window?: number
    /** What turns queries and keys here: an encoding, `table of 4096 positions`, or `none` (or the graph itself). */
    readonly rotation?: string
    /** The form that it had in a published graph. */
    readonly was?: string
  }[]
  /** The ONNX file that was taken, of several in a folder. */
  readonly file?: string
  /** Of config.json and the weights: who keeps something that was learned from a model tells by it whether it fits. */
  readonly weights: string
  /** The file of the scorer beside the model, where there is one: what `importance: 'learned'` ranks by. */
  readonly scorer?: string
  /** Where the weights lie that the segments use; shared ones count once. */
  readonly weightFiles: readonly { readonly file: string; readonly bytes: number }[]
  /** States besides keys and values that pass through the graph; undefined bytes: they grow with the text. */
  readonly states?: readonly { readonly name: string; readonly bytes?: number }[]
  /** What stays with ONNX Runtime although it is attention, or makes sequences run one after the other; and why. */
  readonly warnings?: readonly string[]
  /** What suits the model; the first is what it gets where nothing is chosen. */
  readonly policies: readonly PolicyAdvice[]
  /** Bytes of K and V (and of its importance) that one more token costs in a cache that keeps everything. */
  readonly kvBytesPerToken: number
  readonly backend: string
}
