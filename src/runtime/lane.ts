/**
 * One text that is being written: its cache, its sampler, and the draft that the next step checks. A draft is read
 * together with the last token; of what the model then draws, the tokens up to the first that differs from the draft
 * are exactly those that it would have drawn one by one, and the cache goes back to them.
 */
import type { KvCache } from '../cache/contract.ts'
import type { BatchEntry, CausalLM, StreamEvent } from './contract.ts'
import type { GrammarState } from './grammar.ts'
import { checkUndisturbed } from './hold.ts'
import { findDraft } from './prompt-lookup.ts'
import type { Request } from './request.ts'
import { type Sampler, startSampler } from './sampler.ts'
import { createWriter, type Writer } from './writer.ts'

type TokenEvent = Extract<StreamEvent, { type: 'token' }>

export class Lane {
  readonly writer: Writer
  drafted = 0
  accepted = 0
  cache: KvCache
  readonly #index: number
  readonly #request: Request
  readonly #sampler: Sampler
  readonly #grammar: GrammarState | undefined
  /** Tokens in the cache after the prompt. */
  readonly #base: number
  readonly #ownsCache: boolean
  /** Prompt and answer, where drafts are looked up. */
  readonly #text: number[]
  #draft: readonly number[] = []
  /** Where the draft is read: the cache itself when it can go back, else a fork. */
  #target: KvCache
  /** Tokens that it holds once the draft was read. */
  #reached = 0

  constructor(
    index: number,
    tokenizer: CausalLM['tokenizer'],
    cache: KvCache,
    request: Request,
    grammar?: GrammarState,
  ) {
    const { sampling, promptTokens } = request
    const seed = sampling.seed === undefined ? undefined : sampling.seed + index
    this.writer = createWriter(tokenizer, request)
    this.cache = cache
    this.#target = cache
    this.#index = index
    this.#request = request
    this.#base = cache.seenTokens
    this.#ownsCache = cache !== request.cache
    this.#grammar = grammar
    const mask = grammar && ((logits: Float32Array) => grammar.mask(logits))
    this.#sampler = startSampler({ ...sampling, seed }, { ...request, ...(mask && { mask }) })
    this.#sampler.observe(promptTokens)
    this.#text = [...promptTokens]
  }

  /** What the next step reads: the last token and a draft of those after it. */
  next(): BatchEntry {
    const { draftTokens, maxNgram, maxNewTokens } = this.#request
    const { tokens } = this.writer
    checkUndisturbed(this.cache, this.#base + tokens.length - 1)
    const room = Math.min(draftTokens, maxNewTokens - tokens.length - 1)
    this.#draft = room > 0 ? findDraft(this.#text, maxNgram, room) : []
    this.#target = this.#draft.length > 0 && !this.cache.truncate ? this.cache.fork() : this.cache
    const read = [tokens.at(-1)!, ...this.#draft]
    this.#reached = this.#target.seenTokens + read.length
    return { cache: this.#target, tokens: read, logitsOf: read.map((_, i) => i) }
  }

  /** Draws from the logits after each token of `next()`, until one ends the text or is not what the draft says. */
  async draw(rows: readonly Float32Array[]): Promise<TokenEvent[]> {
    const events: TokenEvent[] = []
    for (const [i, logits] of rows.entries()) {
      await this.#grammar?.prepare()
      const token = this.#sampler.sample(logits)
      this.#grammar?.accept(token)
      this.#sampler.accept(token)
      this.#text.push(token)
      events.push({ type: 'token', index: this.#index, token, ...this.writer.push(token, logits) })
      const isRight = i < this.#draft.length && token === this.#draft[i]
      if (isRight) this.accepted++
      if (!isRight || this.writer.finishReason) break
    }
    this.drafted += this.#draft.length
    return events
  }

  /** Takes tokens that were not drawn out of the cache: it holds all that were, but the last. */
  async settle(model: Pick<CausalLM, 'forward'>): Promise<void> {
    checkUndisturbed(this.#target, this.#reached)
    const length = this.#base + this.writer.tokens.length - 1
    if (this.#target === this.cache) {
      if (this.cache.seenTokens > length) this.cache.truncate!(length)
      return
    }
    if (this.#ownsCache && this.#target.seenTokens === length) {
      this.cache.dispose()
      this.cache = this.#target
      return
    }
    this.release()
    const tokens = this.writer.tokens.slice(this.cache.seenTokens - this.#base, -1)
    await model.forward([{ cache: this.cache, tokens, logitsOf: [] }])
  }

  /** The last token was drawn but not read; a caller who goes on with the cache wants it there, except at an EOS. */
  async feedLast(model: Pick<CausalLM, 'forward'>): Promise<void> {
    const last = this.writer.tokens.at(-1)
    if (last === undefined || this.#request.endTokens.has(last)) return
    checkUndisturbed(this.cache, this.#base + this.writer.tokens.length - 1)
    await model.forward([{ cache: this.cache, tokens: [last], logitsOf: [] }])
  }

  dispose(): void {
    this.release()
    this.#grammar?.dispose()
  }

  /** Disposes of a fork that was made to check a draft. */
  release(): void {
    if (this.#target !== this.cache) this.#target.dispose()
    this.#target = this.cache
  }
}
