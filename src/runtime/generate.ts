/** Text out of a model, one token at a time. Nothing here knows how a forward pass works. */
import type { KvCache } from '../cache/contract.ts'
import { checkInteger, checkKeys, describe } from '../tensor/check.ts'
import { invalidArgument, isKvasirError } from '../tensor/error.ts'
import { checkTokens } from './batch.ts'
import type { CausalLM, FinishReason, GenerateOptions, GenerateResult, StreamEvent } from './contract.ts'
import { createDetokenizer } from './detokenizer.ts'
import { feedTokens } from './prefill.ts'
import { createSampler, type Sampler, samplingKeys } from './sampler.ts'
import { createStopMatcher } from './stop-strings.ts'

/** What generation needs of a model. */
export interface Generator extends Pick<CausalLM, 'forward' | 'createCache' | 'tokenizer' | 'vocabSize'> {
  readonly chunkSize: number
}

const keys = ['maxNewTokens', 'stop', 'signal', 'cache', 'onPrefill', ...samplingKeys]

/** Streams the continuation of `prompt`; see `CausalLM.stream`. Options are checked at the first step. */
export async function* streamText(
  model: Generator,
  prompt: string | readonly number[],
  options: GenerateOptions = {},
): AsyncGenerator<StreamEvent, void, undefined> {
  const { maxNewTokens = 128 } = checkOptions(options)
  const promptTokens = typeof prompt === 'string' ? model.tokenizer.encode(prompt) : [...prompt]
  checkTokens(promptTokens, model.vocabSize)
  const writer = createWriter(model, options)
  writer.sampler.observe(promptTokens)
  const cache = options.cache ?? model.createCache()
  try {
    const clock = { start: performance.now(), decode: 0 }
    let logits = await readPrompt(model, cache, promptTokens, options)
    clock.decode = performance.now()
    while (logits && writer.tokens.length < maxNewTokens && !options.signal?.aborted) {
      const token = writer.sampler.sample(logits)
      const text = writer.push(token, writer.tokens.length + 1 === maxNewTokens)
      yield { type: 'token', token, text }
      if (writer.finishReason) break
      logits = await nextLogits(model, cache, token)
    }
    const finishReason = writer.finishReason ?? (options.signal?.aborted ? 'aborted' : 'length')
    if (options.cache) await feedLast(model, cache, writer)
    const result = {
      text: writer.text,
      tokens: writer.tokens,
      finishReason,
      promptTokens: promptTokens.length,
      generatedTokens: writer.tokens.length,
      prefillMs: clock.decode - clock.start,
      decodeMs: performance.now() - clock.decode,
      kv: cache.getCacheInfo(),
    }
    yield { type: 'done', result }
  } finally {
    if (!options.cache) cache.dispose()
  }
}

/** The result of a whole stream. */
export async function collectText(stream: AsyncIterable<StreamEvent>): Promise<GenerateResult> {
  for await (const event of stream) if (event.type === 'done') return event.result
  throw new Error('unreachable: a stream ends with "done"')
}

/** Logits after the prompt `[V]`, or undefined when the request was aborted meanwhile. */
async function readPrompt(
  model: Generator,
  cache: KvCache,
  tokens: readonly number[],
  { signal, onPrefill }: GenerateOptions,
): Promise<Float32Array | undefined> {
  try {
    return await feedTokens(model, cache, tokens, { chunkSize: model.chunkSize, wantLogits: true, signal, onPrefill })
  } catch (error) {
    if (isKvasirError(error) && error.code === 'aborted') return undefined
    throw error
  }
}

async function nextLogits(model: Generator, cache: KvCache, token: number): Promise<Float32Array> {
  return (await model.forward([{ cache, tokens: [token] }])).data as Float32Array
}

/** The last token was drawn but not read; a caller who goes on with the cache wants it there, except at an EOS. */
async function feedLast(model: Generator, cache: KvCache, writer: Writer): Promise<void> {
  const last = writer.tokens.at(-1)
  if (last === undefined || model.tokenizer.eosTokens.includes(last)) return
  await model.forward([{ cache, tokens: [last], logitsOf: [] }])
}

/** Collects tokens and text of one request, and decides when it ends. */
interface Writer {
  readonly sampler: Sampler
  readonly tokens: readonly number[]
  readonly text: string
  readonly finishReason: FinishReason | undefined
  /** Adds a token; returns the text that can be shown now. At the last one nothing is held back. */
  push(token: number, isLast: boolean): string
}

function createWriter({ tokenizer }: Generator, options: GenerateOptions): Writer {
  const sampler = createSampler(pick(options, samplingKeys))
  const detokenizer = createDetokenizer(tokenizer)
  const stops = createStopMatcher(stopList(options.stop))
  const eos = new Set(tokenizer.eosTokens)
  const tokens: number[] = []
  let text = ''
  let finishReason: FinishReason | undefined
  return {
    sampler,
    tokens,
    get text() {
      return text
    },
    get finishReason() {
      return finishReason
    },
    push(token, isLast) {
      tokens.push(token)
      sampler.observe([token])
      const isEos = eos.has(token)
      let piece = isEos ? '' : detokenizer.push(token)
      if (isEos || isLast) piece += detokenizer.flush()
      const { text: shown, stopped } = stops.push(piece)
      if (isEos || stopped) finishReason = 'stop'
      else if (isLast) finishReason = 'length'
      const result = finishReason === undefined || stopped ? shown : shown + stops.flush()
      text += result
      return result
    },
  }
}

function checkOptions(options: GenerateOptions): GenerateOptions {
  checkKeys('generate', 'generation', options, keys)
  if (options.maxNewTokens !== undefined) checkInteger('generate', 'maxNewTokens', options.maxNewTokens, 0)
  stopList(options.stop)
  return options
}

function stopList(stop: GenerateOptions['stop']): readonly string[] {
  const list: readonly unknown[] = stop === undefined ? [] : Array.isArray(stop) ? stop : [stop]
  const wrong = list.find((item) => typeof item !== 'string' || item === '')
  if (wrong === undefined) return list as readonly string[]
  throw invalidArgument('generate', `expected non-empty strings for stop, got ${describe(wrong)}`)
}

function pick<T extends object, K extends keyof T>(from: T, names: readonly K[]): Pick<T, K> {
  return Object.fromEntries(names.map((name) => [name, from[name]])) as Pick<T, K>
}
