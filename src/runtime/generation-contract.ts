/** The public types of generation: what shapes a text, and what comes back. */
import type { CacheInfo, KvCache } from '../cache/contract.ts'

export interface SamplingOptions {
  /** 0: greedy. The default of this and of the others is what generation_config.json says, else 0. */
  readonly temperature?: number
  /** Draw from so many of the likeliest tokens (0: all). */
  readonly topK?: number
  /** Draw from the likeliest tokens that together have this probability, (0, 1]. */
  readonly topP?: number
  /** Draw from tokens with at least this share of the likeliest one's probability, [0, 1]. */
  readonly minP?: number
  /** Above 1 discourages tokens of prompt and answer. */
  readonly repetitionPenalty?: number
  /** Taken off the logit of each token that the answer has already, [-2, 2]. */
  readonly presencePenalty?: number
  /** Taken off the logit of a token as often as the answer has it, [-2, 2]. */
  readonly frequencyPenalty?: number
  /** Added to the logits of tokens, [-100, 100]; keys are token ids. */
  readonly logitBias?: Readonly<Record<number, number>>
  /** Sequences of tokens (ids) that can't be completed, wherever in prompt and answer they began. */
  readonly badWordsIds?: readonly (readonly number[])[]
  /** The same seed draws the same tokens. */
  readonly seed?: number
}

/** A turn of a conversation, as chat templates expect it; what else they read is passed on. */
export interface ChatMessage {
  readonly role: string
  readonly content?: unknown
  readonly [key: string]: unknown
}

/** Text, tokens, or the turns of a conversation, which the model's chat template makes a text. */
export type Prompt = string | readonly number[] | Int32Array | readonly ChatMessage[]

/** What else a chat template reads. */
export interface ChatOptions {
  /** Descriptions of functions, as JSON schema. */
  readonly tools?: readonly object[]
  /** Which of several templates, by name (default: `tool_use` with tools where there is one, else `default`). */
  readonly chatTemplate?: string
  /** Whether the text ends where the model's answer begins (default true). */
  readonly addGenerationPrompt?: boolean
  /** Further variables of the template: `{ enable_thinking: false }`. */
  readonly templateArguments?: Readonly<Record<string, unknown>>
}

/** Search for the likeliest text instead of the likeliest next token; definitions are those of transformers. */
export interface BeamOptions {
  /** Beams that are followed (default 1: none). */
  readonly numBeams?: number
  /** A text's score is its log probability over (its tokens to this power) (default 1). */
  readonly lengthPenalty?: number
  /** true: as soon as `numBeams` texts are complete; false (default): by an estimate; 'never': when none can win. */
  readonly earlyStopping?: boolean | 'never'
}

/** Several tokens a step: drafts copied from the text so far, of which those that the model itself draws are kept. */
export interface LookupOptions {
  /** Most tokens in a draft (default 0: none). */
  readonly promptLookupTokens?: number
  /** Longest end of the text that is looked up in it (default 3). */
  readonly maxMatchingNgram?: number
}

/** Any JSON, JSON of a schema, or a text of a grammar in EBNF as XGrammar (and GBNF) has it, with the rule `root`. */
export type ResponseFormat = 'json' | { readonly jsonSchema: object } | { readonly grammar: string }

export interface GenerateOptions extends SamplingOptions, ChatOptions, BeamOptions, LookupOptions {
  /** Default 128, or what generation_config.json says. */
  readonly maxNewTokens?: number
  /** No end before so many new tokens (default 0). */
  readonly minNewTokens?: number
  /** Ends before any of these texts. */
  readonly stop?: string | readonly string[]
  /** Ends at any of these tokens, as at an EOS. */
  readonly stopTokens?: readonly number[]
  /** Leaves the stop text in the result (default false). */
  readonly includeStop?: boolean
  /** Goes on after an EOS (default false). */
  readonly ignoreEos?: boolean
  /** Texts that are drawn from the same prompt, which is read once (default 1). With beams: the n best. */
  readonly n?: number
  /** Gives log probabilities: of each token, and of so many of the likeliest in its place (0..100). */
  readonly logprobs?: number
  /** Only texts of this form can be written. */
  readonly responseFormat?: ResponseFormat
  readonly signal?: AbortSignal
  /**
   * Continues this cache, which already holds the beginning of the text; the caller keeps and disposes it. Afterwards
   * it holds the prompt and all generated tokens too, except a last one that ends the text (EOS). With several texts
   * or beams it holds the prompt alone.
   */
  readonly cache?: KvCache
  /** Called after each chunk of the prompt. */
  readonly onPrefill?: (readTokens: number, promptTokens: number) => void
  /** Of models with a `prefixCache`: with whom this prompt shares (default: the salt of `loadModel`), or not at all. */
  readonly prefixCache?: PrefixChoice
}

/** Prefixes that were kept with another salt are never found. */
export type PrefixChoice = false | { readonly salt?: string }

export type FinishReason = 'stop' | 'length' | 'aborted'

/** Log probabilities of the model itself: before bias, penalties and temperature. */
export interface TokenLogprob {
  readonly token: number
  readonly logprob: number
  /** 1: no token was likelier. */
  readonly rank: number
  /** The likeliest tokens, the first of them first. */
  readonly top: readonly { readonly token: number; readonly logprob: number }[]
}

/** One text that was generated. */
export interface GeneratedText {
  readonly text: string
  /** Every token that was drawn, an EOS at the end included. */
  readonly tokens: readonly number[]
  readonly finishReason: FinishReason
  /** The stop text or token that ended it. */
  readonly stopReason?: string | number
  /** One a token, when asked for. */
  readonly logprobs?: readonly TokenLogprob[]
  /** With beams: log probability over length. */
  readonly score?: number
}

/** The first text, all of them, and what it took. */
export interface GenerateResult extends GeneratedText {
  /** `n` texts, this one first. */
  readonly choices: readonly GeneratedText[]
  readonly promptTokens: number
  /** Of these, tokens whose keys and values were there already. */
  readonly reusedTokens: number
  /** Of all texts. */
  readonly generatedTokens: number
  readonly prefillMs: number
  readonly decodeMs: number
  /** Of the cache that was given, else of that of the first text. */
  readonly kv: CacheInfo
  /** With `promptLookupTokens`: tokens of drafts, and how many of them were right. */
  readonly lookup?: { readonly drafted: number; readonly accepted: number }
}

/**
 * One step of a stream. `text` is never half a character and never part of a stop string; all of them together (of one
 * `index` of `choices`) are its text. The last event carries the whole result.
 */
export type StreamEvent =
  | {
      readonly type: 'token'
      readonly index: number
      readonly token: number
      readonly text: string
      readonly logprob?: TokenLogprob
    }
  | { readonly type: 'done'; readonly result: GenerateResult }

/** What generation_config.json may set. */
export type GenerationDefaults = Pick<
  GenerateOptions,
  | 'temperature'
  | 'topK'
  | 'topP'
  | 'minP'
  | 'repetitionPenalty'
  | 'badWordsIds'
  | 'maxNewTokens'
  | 'minNewTokens'
  | 'stop'
  | 'lengthPenalty'
  | 'earlyStopping'
  | 'promptLookupTokens'
  | 'maxMatchingNgram'
>
