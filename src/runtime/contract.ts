/** The public types of a loaded model: what `loadModel` takes and gives. */
import type { Tensor } from 'onnxruntime-common'
import type { CacheInfo, CacheOptions, CacheShape, KvCache } from '../cache/contract.ts'
import type { BackendName } from '../kernels/contract.ts'

export interface LoadOptions extends Partial<CacheOptions> {
  /** Kernels for attention (default: best available; `KVASIR_BACKEND` overrides the default). */
  readonly backend?: BackendName
  /** Threads of the kernels and of ONNX Runtime (default: all cores). */
  readonly threads?: number
  /** Tokens that are run through the model at once while a prompt is read (default 512): bounds scratch memory. */
  readonly chunkSize?: number
  /** Build MatMulNBits weights of this width, once, into a cache folder. */
  readonly quantize?: 'int8' | 'int4'
}

export interface SamplingOptions {
  /** 0 (default): greedy. */
  readonly temperature?: number
  readonly topK?: number
  readonly topP?: number
  readonly minP?: number
  readonly repetitionPenalty?: number
  readonly seed?: number
}

export interface GenerateOptions extends SamplingOptions {
  /** Default 128. */
  readonly maxNewTokens?: number
  readonly stop?: string | readonly string[]
  readonly signal?: AbortSignal
  /**
   * Continues this cache, which already holds the beginning of the text; the caller keeps and disposes it. Afterwards
   * it holds the prompt and all generated tokens too, except a last one that ends the text (EOS).
   */
  readonly cache?: KvCache
  /** Called after each chunk of the prompt. */
  readonly onPrefill?: (readTokens: number, promptTokens: number) => void
}

export type FinishReason = 'stop' | 'length' | 'aborted'

export interface GenerateResult {
  readonly text: string
  /** Every token that was drawn, an EOS at the end included. */
  readonly tokens: readonly number[]
  readonly finishReason: FinishReason
  readonly promptTokens: number
  readonly generatedTokens: number
  readonly prefillMs: number
  readonly decodeMs: number
  readonly kv: CacheInfo
}

/**
 * One step of a stream. `text` is never half a character and never part of a stop string; all of them together are
 * `result.text`. The last event carries the whole result.
 */
export type StreamEvent =
  | { readonly type: 'token'; readonly token: number; readonly text: string }
  | { readonly type: 'done'; readonly result: GenerateResult }

/** Some new tokens of one sequence in a flat list. */
export interface BatchEntry {
  readonly cache: KvCache
  readonly tokens: Int32Array | readonly number[]
  /** Which of these tokens' next-token logits are wanted, as indices into `tokens` (default: the last). */
  readonly logitsOf?: readonly number[]
}

/** A loaded model. */
export interface CausalLM {
  readonly shape: CacheShape
  readonly vocabSize: number
  readonly tokenizer: TextTokenizer
  /** What the model's options resolved to. */
  readonly cacheOptions: CacheOptions
  /** A fresh, empty cache for one sequence; `options` override those of `loadModel`. */
  createCache(options?: Partial<CacheOptions>): KvCache
  /**
   * Runs all tokens of all entries as one flat list, `chunkSize` at a time. Logits: f32 `[rows wanted, vocabSize]`,
   * entries in order, rows in the order of `logitsOf`. Calls are queued: each runs alone. When a call fails in the
   * middle, a cache whose layers then differ is refused by later calls until it is reset.
   */
  forward(batch: readonly BatchEntry[]): Promise<Tensor>
  /** Feeds tokens in chunks without asking for logits. Throws `aborted` between chunks. */
  prefill(cache: KvCache, tokens: Int32Array | readonly number[], options?: PrefillOptions): Promise<void>
  generate(prompt: string | readonly number[], options?: GenerateOptions): Promise<GenerateResult>
  stream(prompt: string | readonly number[], options?: GenerateOptions): AsyncIterable<StreamEvent>
  describe(): ModelDescription
  dispose(): Promise<void>
}

export interface PrefillOptions {
  readonly signal?: AbortSignal
  readonly onPrefill?: (readTokens: number, promptTokens: number) => void
}

export interface TextTokenizer {
  encode(text: string): number[]
  decode(tokens: readonly number[]): string
  readonly eosTokens: readonly number[]
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
  }[]
  /** Bytes of K and V that one more token costs in a cache that keeps everything. */
  readonly kvBytesPerToken: number
  readonly backend: string
}
