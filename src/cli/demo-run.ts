/** One half of the demonstration: a story read under one policy, then the questions. */
import { type Answer, ask } from '../../eval/ask.ts'
import type { Document } from '../../eval/document.ts'
import { read } from '../../eval/recall.ts'
import type { PolicyName } from '../cache/contract.ts'
import type { CausalLM } from '../runtime/contract.ts'
import { formatBytes, formatCount, ratePerSecond } from './format.ts'
import { readingTokens, withProgress } from './progress.ts'
import type { Terminal } from './terminal.ts'

export interface Run {
  readonly policy: PolicyName
  readonly tokensRead: number
  readonly kvBytes: number
  readonly fullKvBytes: number
  readonly rssBytes: number
  readonly tokensPerSecond: number
  readonly questions: number
  readonly correct: number
}

export async function runPolicy(
  model: CausalLM,
  document: Document,
  { policy, window, signal }: { policy: PolicyName; window: number; signal: AbortSignal },
  terminal: Terminal,
): Promise<Run> {
  const cache = model.createCache({ policy, window })
  try {
    const total = document.tokens.length
    const memory = (): string => {
      const { bytes, fullBytes } = cache.getCacheInfo()
      const rss = formatBytes(process.memoryUsage.rss())
      return `KV cache ${formatBytes(bytes)} (a full cache: ${formatBytes(fullBytes)}), process ${rss}`
    }
    const readMs = await withProgress(terminal, readingTokens, (tell) => {
      tell(0, total)
      return read(model, cache, document, { signal, onPrefill: (done) => tell(done, total, memory()) })
    })
    const { bytes, fullBytes } = cache.getCacheInfo()
    const tokensPerSecond = ratePerSecond(total, readMs)
    terminal.print(`  Read ${formatCount(total)} tokens at ${formatCount(tokensPerSecond)} a second.`)
    terminal.print(`  ${memory()}.`)
    terminal.print()
    const answers = await askAll(model, cache, document, signal, terminal)
    return {
      policy,
      tokensRead: total,
      kvBytes: bytes,
      fullKvBytes: fullBytes,
      rssBytes: process.memoryUsage.rss(),
      tokensPerSecond,
      questions: answers.length,
      correct: answers.filter(({ isCorrect }) => isCorrect).length,
    }
  } finally {
    cache.dispose()
  }
}

async function askAll(
  model: CausalLM,
  cache: ReturnType<CausalLM['createCache']>,
  { questions }: Document,
  signal: AbortSignal,
  terminal: Terminal,
): Promise<Answer[]> {
  const { dim, green, red } = terminal.paint
  const width = Math.max(...questions.map(({ prompt }) => prompt.length))
  const answers: Answer[] = []
  for (const question of questions) {
    terminal.write(`  ${dim(question.prompt.padEnd(width))} `) // the answer begins with a space
    const answer = await ask(model, cache, question, { signal, onText: (text) => terminal.write(text.trimEnd()) })
    terminal.print(answer.isCorrect ? ` ${green('✓')}` : ` ${red('✗')} ${dim(`(${rightWords(answer)})`)}`)
    answers.push(answer)
  }
  return answers
}

/** The words of the right answer that count: "blue drawer". */
function rightWords({ question }: Answer): string {
  const { text, valueSpans } = question.answer
  return valueSpans.map(([begin, end]) => text.slice(begin, end)).join(' ')
}
