/**
 * Messages between the thread of the caller and the thread of a model. Calls have a number and one answer; caches live
 * beside the model and cross as numbers; messages about caches have no answer, and what goes wrong with one is told by
 * the next call that uses it.
 */
import type { CacheInfo, CacheOptions, CacheShape } from '../../cache/contract.ts'
import type { PrefixStats } from '../../cache/prefix/shared-prefixes.ts'
import type {
  BatchEntry,
  CacheReport,
  ChatOptions,
  GenerateOptions,
  GenerationDefaults,
  ModelDescription,
  PrefillResult,
  Prompt,
  SavedFile,
  StreamEvent,
} from '../contract.ts'
import type { ErrorData } from './error-data.ts'

/** Options that can cross: the signal becomes a message, progress comes as messages, the cache is a number. */
export interface RemoteOptions {
  readonly options: Omit<GenerateOptions, 'signal' | 'onPrefill' | 'cache'>
  readonly cache?: number
  readonly wantsProgress: boolean
  readonly isAborted: boolean
}

export interface RemoteEntry extends Omit<BatchEntry, 'cache'> {
  readonly cache: number
}

/** What can be called, with arguments and result. */
export interface Calls {
  forward: [
    args: { readonly batch: readonly RemoteEntry[] },
    result: { readonly data: Float32Array; readonly dims: readonly number[] },
  ]
  prefill: [args: { readonly tokens: Int32Array | readonly number[] } & RemoteOptions, result: PrefillResult]
  generate: [args: { readonly prompt: Prompt } & RemoteOptions, result: unknown]
  tokenize: [args: { readonly prompt: Prompt; readonly options: ChatOptions }, result: readonly number[]]
  /** Begins a stream under the number of the call; `next` and `leave` go on with it. */
  open: [args: { readonly prompt: Prompt } & RemoteOptions, result: undefined]
  next: [args: { readonly stream: number }, result: StreamEvent | undefined]
  leave: [args: { readonly stream: number }, result: undefined]
  save: [args: { readonly caches: readonly number[]; readonly path: string; readonly note: unknown }, result: SavedFile]
  restore: [args: { readonly path: string; readonly options: Partial<CacheOptions> }, result: RestoredStates]
  explain: [args: { readonly cache: number }, result: CacheReport]
  check: [args: { readonly cache: number }, result: undefined]
  prefixStats: [args: Record<string, never>, result: PrefixStats | undefined]
  dispose: [args: Record<string, never>, result: undefined]
}

export type CallName = keyof Calls

export type CacheMessage =
  | { readonly do: 'create'; readonly cache: number; readonly options: Partial<CacheOptions> }
  | { readonly do: 'fork'; readonly cache: number; readonly from: number }
  | { readonly do: 'truncate'; readonly cache: number; readonly length: number }
  | { readonly do: 'reset' | 'dispose'; readonly cache: number }

export type ToModel =
  | { readonly type: 'call'; readonly id: number; readonly name: CallName; readonly args: Calls[CallName][0] }
  | { readonly type: 'abort'; readonly id: number }
  | ({ readonly type: 'cache' } & CacheMessage)

/** Where a cache stands after a call or a message. */
export interface CacheState {
  readonly cache: number
  readonly info: CacheInfo
  readonly canTruncate: boolean
}

/** Caches that were read from a file. Their numbers are below 0, since the model's side gives them out. */
export interface RestoredStates {
  readonly caches: readonly CacheState[]
  readonly tokens: readonly Int32Array[]
  readonly note: unknown
}

export type FromModel =
  | { readonly type: 'ready'; readonly facts: ModelFacts }
  | { readonly type: 'failed'; readonly error: ErrorData }
  | { readonly type: 'result'; readonly id: number; readonly value: unknown; readonly caches: readonly CacheState[] }
  | { readonly type: 'error'; readonly id: number; readonly error: ErrorData; readonly caches: readonly CacheState[] }
  | { readonly type: 'progress'; readonly id: number; readonly read: number; readonly all: number }
  | { readonly type: 'cache'; readonly state: CacheState }

/** What the caller's side knows of the model without asking. */
export interface ModelFacts {
  readonly shape: CacheShape
  readonly vocabSize: number
  readonly cacheOptions: CacheOptions
  readonly generationDefaults: GenerationDefaults
  readonly description: ModelDescription
}

/** The part of a message port that is used; tests connect both sides without a thread. */
export interface Port {
  postMessage(message: unknown, transfer?: readonly ArrayBuffer[]): void
  on(event: 'message', listener: (message: unknown) => void): unknown
}
