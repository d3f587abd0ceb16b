/** Puts one question to a model that has read a document, without changing what it has read. */
import type { KvCache } from '../src/cache/contract.ts'
import type { CausalLM } from '../src/runtime/contract.ts'
import { KvasirError } from '../src/tensor/error.ts'
import { answerEnd, type Question, questionPrefix } from '../training/stories.ts'

export interface Answer {
  readonly question: Question
  /** What the model said, without spaces around it. */
  readonly said: string
  readonly expected: string
  readonly isCorrect: boolean
}

export interface AskOptions {
  readonly signal?: AbortSignal
  /** Gets the answer in pieces, as it is written. */
  readonly onText?: (text: string) => void
}

const maxAnswerTokens = 40

/** Answers from a fork of `cache`, greedily; correct means the same words, letter for letter. */
export async function ask(
  model: CausalLM,
  cache: KvCache,
  question: Question,
  { signal, onText }: AskOptions = {},
): Promise<Answer> {
  const fork = cache.fork()
  try {
    const prompt = model.tokenizer.encode(questionPrefix + question.prompt)
    const options = { cache: fork, maxNewTokens: maxAnswerTokens, stop: answerEnd, temperature: 0, signal }
    let text = ''
    for await (const event of model.stream(prompt, options)) {
      if (event.type === 'token') {
        onText?.(event.text)
        continue
      }
      if (event.result.finishReason === 'aborted') throw new KvasirError('aborted', 'eval', 'interrupted')
      text = event.result.text
    }
    return mark(question, text)
  } finally {
    fork.dispose()
  }
}

/** Compares what was said with what is right. */
export function mark(question: Question, text: string): Answer {
  const said = text.trim()
  const expected = question.answer.text.trim()
  return { question, said, expected, isCorrect: said === expected }
}
