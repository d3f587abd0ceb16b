/** Collects tokens and text of one answer, and decides when it ends. */
import type { FinishReason, GeneratedText, TextTokenizer, TokenLogprob } from './contract.ts'
import { createDetokenizer } from './detokenizer.ts'
import { tokenLogprob } from './logprobs.ts'
import { createStopMatcher } from './stop-strings.ts'

export interface WriterOptions {
  /** Most tokens. */
  readonly maxNewTokens: number
  readonly stops: readonly string[]
  readonly endTokens: ReadonlySet<number>
  readonly includeStop: boolean
  /** Likeliest tokens beside each; undefined: no log probabilities at all. */
  readonly logprobs: number | undefined
}

export interface Writer {
  readonly tokens: readonly number[]
  /** Undefined while the answer goes on. */
  readonly finishReason: FinishReason | undefined
  /** Adds a token that was drawn from `logits`; gives the text that can be shown now. At the end nothing is held back. */
  push(token: number, logits: Float32Array): { readonly text: string; readonly logprob?: TokenLogprob }
  /** The answer so far; `unfinished` says why it ends where no token ended it. */
  result(unfinished: FinishReason): GeneratedText
}

export function createWriter(tokenizer: Pick<TextTokenizer, 'decode'>, options: WriterOptions): Writer {
  const detokenizer = createDetokenizer(tokenizer)
  const stops = createStopMatcher(options.stops)
  const tokens: number[] = []
  const logprobs: TokenLogprob[] = []
  let text = ''
  let finishReason: FinishReason | undefined
  let stopReason: string | number | undefined

  const show = (token: number): string => {
    const isEnd = options.endTokens.has(token)
    const isLast = tokens.length === options.maxNewTokens
    let piece = isEnd && !options.includeStop ? '' : detokenizer.push(token)
    if (isEnd || isLast) piece += detokenizer.flush()
    const { text: shown, stop } = stops.push(piece)
    if (stop !== undefined || isEnd) {
      finishReason = 'stop'
      stopReason = stop ?? token
    } else if (isLast) finishReason = 'length'
    if (stop !== undefined) return options.includeStop ? shown + stop : shown
    return finishReason === undefined ? shown : shown + stops.flush()
  }

  return {
    tokens,
    get finishReason() {
      return finishReason
    },
    push(token, logits) {
      tokens.push(token)
      const shown = show(token)
      text += shown
      if (options.logprobs === undefined) return { text: shown }
      const logprob = tokenLogprob(logits, token, options.logprobs)
      logprobs.push(logprob)
      return { text: shown, logprob }
    },
    result: (unfinished) => ({
      text,
      tokens,
      finishReason: finishReason ?? unfinished,
      ...(stopReason !== undefined && { stopReason }),
      ...(options.logprobs !== undefined && { logprobs }),
    }),
  }
}
