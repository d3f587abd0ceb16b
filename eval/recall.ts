/**
 * Recall: how many facts from the beginning of a long document a model still knows at its end.
 *
 * Each document is read once; each of its questions is answered from a fork of the cache, so that no answer can help
 * with the next one. Guessing is right in about one of twenty to one of thousands, by the kind of question.
 */
import type { CacheOptions, KvCache } from '../src/cache/contract.ts'
import type { CausalLM } from '../src/runtime/contract.ts'
import { checkInteger } from '../src/tensor/check.ts'
import type { FactKind } from '../training/stories.ts'
import { type Answer, ask } from './ask.ts'
import { createDocument, type Document } from './document.ts'

export interface RecallOptions {
  /** Length of each document. */
  readonly contextTokens: number
  /** Questions in all. */
  readonly questions: number
  /** The first document's seed; the next ones count up. */
  readonly seed: number
  readonly questionsPerDocument?: number
  readonly signal?: AbortSignal
  readonly onProgress?: (progress: RecallProgress) => void
}

export interface RecallProgress {
  readonly tokensRead: number
  readonly tokensTotal: number
  readonly correct: number
  readonly questions: number
}

export interface Tally {
  readonly questions: number
  readonly correct: number
}

export interface RecallResult extends Tally {
  readonly contextTokens: number
  /** null when nothing is forgotten. */
  readonly window: number | null
  readonly policy: CacheOptions['policy']
  /** correct / questions, 0..1 */
  readonly recall: number
  /** KV bytes after reading a document. */
  readonly kvBytes: number
  /** What a cache that keeps everything would hold then. */
  readonly fullKvBytes: number
  readonly documents: number
  readonly byKind: Partial<Record<FactKind, Tally>>
  /** Reading speed. */
  readonly tokensPerSecond: number
  readonly seconds: number
  /** The first few wrong answers. */
  readonly misses: readonly { readonly question: string; readonly expected: string; readonly said: string }[]
}

const defaultQuestionsPerDocument = 20
const keptMisses = 5

/** What has been done so far. */
interface State {
  readonly answers: Answer[]
  tokensRead: number
  readingMs: number
  kvBytes: number
  fullKvBytes: number
}

/** @throws KvasirError `invalid-argument` for counts below 1, `aborted` when the signal fires. */
export async function evalRecall(model: CausalLM, options: RecallOptions): Promise<RecallResult> {
  const { contextTokens, questions, seed, questionsPerDocument = defaultQuestionsPerDocument } = options
  checkInteger('eval', 'contextTokens', contextTokens, 1)
  checkInteger('eval', 'questions', questions, 1)
  checkInteger('eval', 'seed', seed, 0)
  checkInteger('eval', 'questionsPerDocument', questionsPerDocument, 1)
  const started = performance.now()
  const documents = Math.ceil(questions / questionsPerDocument)
  const state: State = { answers: [], tokensRead: 0, readingMs: 0, kvBytes: 0, fullKvBytes: 0 }
  for (let index = 0; index < documents; index++) {
    const facts = Math.min(questionsPerDocument, questions - state.answers.length)
    const document = createDocument(model.tokenizer, { seed: seed + index, tokens: contextTokens, facts })
    await evalDocument(model, document, state, { ...options, tokensTotal: documents * contextTokens })
  }
  const { answers, tokensRead, readingMs, kvBytes, fullKvBytes } = state
  const correct = countCorrect(answers)
  const { policy, window = null } = model.cacheOptions
  return {
    ...{ contextTokens, window, policy, questions: answers.length, correct, recall: correct / answers.length },
    ...{ kvBytes, fullKvBytes, documents, byKind: tallyByKind(answers) },
    tokensPerSecond: (tokensRead * 1000) / Math.max(1, readingMs),
    seconds: (performance.now() - started) / 1000,
    misses: listMisses(answers),
  }
}

async function evalDocument(
  model: CausalLM,
  document: Document,
  state: State,
  { signal, onProgress, tokensTotal }: RecallOptions & { readonly tokensTotal: number },
): Promise<void> {
  const report = (tokensRead: number): void => {
    const { answers } = state
    onProgress?.({ tokensRead, tokensTotal, correct: countCorrect(answers), questions: answers.length })
  }
  const cache = model.createCache()
  try {
    state.readingMs += await read(model, cache, document, {
      signal,
      onPrefill: (done) => report(state.tokensRead + done),
    })
    state.tokensRead += document.tokens.length
    const { bytes, fullBytes } = cache.getCacheInfo()
    Object.assign(state, { kvBytes: bytes, fullKvBytes: fullBytes })
    for (const question of document.questions) state.answers.push(await ask(model, cache, question, { signal }))
    report(state.tokensRead)
  } finally {
    cache.dispose()
  }
}

/** Feeds a document to a cache; returns the milliseconds that took. */
export async function read(
  model: CausalLM,
  cache: KvCache,
  document: Document,
  options: { signal?: AbortSignal; onPrefill?: (readTokens: number) => void },
): Promise<number> {
  const started = performance.now()
  await model.prefill(cache, document.tokens, options)
  return performance.now() - started
}

export function tallyByKind(answers: readonly Answer[]): Partial<Record<FactKind, Tally>> {
  const byKind: Partial<Record<FactKind, Tally>> = {}
  for (const { question, isCorrect } of answers) {
    const { questions = 0, correct = 0 } = byKind[question.kind] ?? {}
    byKind[question.kind] = { questions: questions + 1, correct: correct + Number(isCorrect) }
  }
  return byKind
}

function countCorrect(answers: readonly Answer[]): number {
  return answers.filter(({ isCorrect }) => isCorrect).length
}

function listMisses(answers: readonly Answer[]): RecallResult['misses'] {
  return answers
    .filter(({ isCorrect }) => !isCorrect)
    .slice(0, keptMisses)
    .map(({ question, expected, said }) => ({ question: question.prompt, expected, said }))
}
