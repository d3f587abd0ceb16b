/** Turns of a conversation on one cache; see `Conversation`. */
import type { CacheInfo } from '../cache/contract.ts'
import { describe } from '../tensor/check.ts'
import { invalidArgument, isKvasirError } from '../tensor/error.ts'
import type {
  CacheReport,
  CausalLM,
  ChatMessage,
  ChatOptions,
  Conversation,
  ConversationOptions,
  SavedFile,
  TurnEvent,
  TurnOptions,
  TurnResult,
} from './contract.ts'
import { commonLength, PrefixCache } from './prefix-cache.ts'

type Message = string | ChatMessage | readonly ChatMessage[]

export class CachedConversation implements Conversation {
  messages: readonly ChatMessage[]
  readonly #model: CausalLM
  readonly #options: TurnOptions
  readonly #cache: PrefixCache
  #isBusy = false
  #isDisposed = false

  constructor(model: CausalLM, { system, messages = [], cache, ...options }: ConversationOptions = {}) {
    this.messages = system === undefined ? messages : [{ role: 'system', content: system }, ...messages]
    this.#model = model
    this.#options = checkTurn(options)
    this.#cache = new PrefixCache(model, cache)
  }

  async send(message: Message, options?: TurnOptions): Promise<TurnResult> {
    for await (const event of this.stream(message, options)) if (event.type === 'done') return event.result
    throw new Error('unreachable: a stream ends with "done"')
  }

  async *stream(message: Message, options: TurnOptions = {}): AsyncGenerator<TurnEvent, void, undefined> {
    this.#checkFree()
    const messages = [...this.messages, ...toMessages(message)]
    const turn = { ...this.#options, ...checkTurn(options) }
    this.#isBusy = true
    let text = ''
    // An answer that its reader leaves stays as far as it was shown; a turn that fails adds nothing.
    let hasFailed = false
    try {
      for await (const event of this.#answer(messages, turn)) {
        if (event.type === 'token') text += event.text
        yield event
      }
    } catch (error) {
      hasFailed = true
      // Wrong input was refused before anything was read; after anything else the cache may be half written.
      if (!isKvasirError(error) || error.code !== 'invalid-argument') this.#cache.reset()
      throw error
    } finally {
      this.#isBusy = false
      if (!hasFailed) this.messages = [...messages, { role: 'assistant', content: text }]
    }
  }

  async save(path: string): Promise<SavedFile> {
    return await this.#alone(() => this.#cache.save(path, { messages: this.messages }))
  }

  async restore(path: string): Promise<void> {
    await this.#alone(async () => {
      const { messages } = ((await this.#cache.restore(path)) ?? {}) as { messages?: readonly ChatMessage[] }
      if (Array.isArray(messages)) this.messages = messages
    })
  }

  async #alone<T>(task: () => Promise<T>): Promise<T> {
    this.#checkFree()
    this.#isBusy = true
    try {
      return await task()
    } finally {
      this.#isBusy = false
    }
  }

  #checkFree(): void {
    if (this.#isDisposed) throw invalidArgument('conversation', 'expected a conversation in use, got one disposed')
    if (this.#isBusy) throw invalidArgument('conversation', 'expected the turn before to be over, got another one')
  }

  getCacheInfo(): CacheInfo {
    return this.#cache.getCacheInfo()
  }

  async explainCache(): Promise<CacheReport> {
    this.#checkFree()
    return await this.#cache.explain()
  }

  dispose(): void {
    if (!this.#isDisposed) this.#cache.dispose()
    this.#isDisposed = true
  }

  async *#answer(messages: readonly ChatMessage[], options: TurnOptions): AsyncGenerator<TurnEvent> {
    const { tools, chatTemplate, templateArguments, addGenerationPrompt, ...rest } = options
    const chat: ChatOptions = { tools, chatTemplate, templateArguments, addGenerationPrompt }
    const prompt = await this.#model.tokenize(messages, withoutUndefined(chat))
    const reusedTokens = this.#cache.reuse(prompt)
    const stable = async (): Promise<number> => {
      const turns = await this.#model.tokenize(messages, { ...withoutUndefined(chat), addGenerationPrompt: false })
      return commonLength(prompt, turns)
    }
    for await (const event of this.#cache.stream(prompt, reusedTokens, stable, rest)) {
      if (event.type === 'token') yield event
      else yield { type: 'done', result: { ...event.result, promptTokens: prompt.length } }
    }
  }
}

function toMessages(message: Message): readonly ChatMessage[] {
  if (typeof message === 'string') return [{ role: 'user', content: message }]
  if (Array.isArray(message)) return message
  if (typeof message === 'object' && message !== null) return [message as ChatMessage]
  throw invalidArgument('conversation', `expected a text or messages, got ${describe(message)}`)
}

function checkTurn(options: TurnOptions): TurnOptions {
  for (const name of ['cache', 'n', 'numBeams']) {
    if (!(name in options)) continue
    throw invalidArgument('conversation', `expected one answer from the conversation's own cache, got option "${name}"`)
  }
  return options
}

function withoutUndefined<T extends object>(options: T): T {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as T
}
