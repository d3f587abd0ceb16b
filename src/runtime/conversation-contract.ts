/** The public types of conversations. */
import type { CacheInfo, CacheOptions } from '../cache/contract.ts'
import type { CacheReport, SavedFile } from './contract.ts'
import type { ChatMessage, GenerateOptions, GenerateResult, StreamEvent } from './generation-contract.ts'

/** Options of one turn; a conversation has its own cache and one answer a turn. */
export type TurnOptions = Omit<GenerateOptions, 'cache' | 'n' | 'numBeams' | 'lengthPenalty' | 'earlyStopping'>

/** Options of all turns, and how a conversation begins. */
export interface ConversationOptions extends TurnOptions {
  /** A first message of role `system`. */
  readonly system?: string
  /** Turns that were there before. */
  readonly messages?: readonly ChatMessage[]
  /** Overrides the cache options of `loadModel`. */
  readonly cache?: Partial<CacheOptions>
}

export interface TurnResult extends GenerateResult {
  /** Of the tokens of the whole conversation (`promptTokens`), those whose keys and values were there already. */
  readonly reusedTokens: number
}

export type TurnEvent = Extract<StreamEvent, { type: 'token' }> | { readonly type: 'done'; readonly result: TurnResult }

/**
 * A conversation with a model. Each turn makes tokens of all messages and compares them with the tokens that the cache
 * holds: what is the same from the beginning on is not read again. A changed or removed message thus costs a second
 * reading from there on, and never a wrong answer.
 */
export interface Conversation {
  /** All turns so far. May be set: to take back a turn, or to change one. */
  messages: readonly ChatMessage[]
  /**
   * Adds a message (a text is one of role `user`) and the answer to it. An answer that is aborted or left is added as
   * far as it came; a turn that fails adds nothing.
   */
  send(message: string | ChatMessage | readonly ChatMessage[], options?: TurnOptions): Promise<TurnResult>
  /** The same, as it comes. */
  stream(message: string | ChatMessage | readonly ChatMessage[], options?: TurnOptions): AsyncIterable<TurnEvent>
  getCacheInfo(): CacheInfo
  /**
   * Which tokens each layer and head of its cache keeps and why.
   * @throws KvasirError `invalid-argument` during a turn
   */
  explainCache(): Promise<CacheReport>
  /**
   * Writes messages and cache to a file, from which a conversation with the same model goes on without reading anything
   * again.
   * @throws KvasirError `invalid-argument` during a turn, or when the place can't be written to
   */
  save(path: string): Promise<SavedFile>
  /**
   * Takes messages and cache from a file of `save`. When the file is refused the conversation is as it was.
   * @throws KvasirError as `CausalLM.restoreCache`; `invalid-argument` during a turn
   */
  restore(path: string): Promise<void>
  /** Frees the cache. */
  dispose(): void
}
