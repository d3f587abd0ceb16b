/** Text out of a model, one token at a time. Nothing here knows how a forward pass works. */
import type { KvCache } from '../cache/contract.ts'
import { invalidArgument, isKvasirError } from '../tensor/error.ts'
import { searchBeams } from './beam-search.ts'
import type { GeneratedText, GenerateOptions, GenerateResult, Prompt, StreamEvent } from './contract.ts'
import { compileGrammar } from './grammar.ts'
import { holding, holdingSteps } from './hold.ts'
import { Lane } from './lane.ts'
import { type FedTokens, feedTokens } from './prefill.ts'
import { type Generator, type Request, readRequest } from './request.ts'

export type { Generator } from './request.ts'

/** Streams the continuation of `prompt`; see `CausalLM.stream`. Options are checked at the first step. */
export async function* streamText(
  model: Generator,
  prompt: Prompt,
  options: GenerateOptions = {},
): AsyncGenerator<StreamEvent, void, undefined> {
  const request = readRequest(model, prompt, options)
  if (request.numBeams > 1) {
    throw invalidArgument(
      'generate',
      'expected numBeams 1 for a stream: the best beam is known at the end; use generate',
    )
  }
  yield* holdingSteps(request.cache, streamLanes(model, request))
}

/** The whole result; see `CausalLM.generate`. */
export async function generateText(
  model: Generator,
  prompt: Prompt,
  options: GenerateOptions = {},
): Promise<GenerateResult> {
  const request = readRequest(model, prompt, options)
  const write = request.numBeams === 1 ? () => collectText(streamLanes(model, request)) : () => bestText(model, request)
  return await holding(request.cache, write)
}

/** By beam search. */
async function bestText(model: Generator, request: Request): Promise<GenerateResult> {
  const cache = request.cache ?? model.createCache()
  try {
    const start = performance.now()
    const { logits, reusedTokens } = await readPrompt(model, cache, request)
    const decode = performance.now()
    const choices = await searchBeams(model, cache, request, logits)
    return summarize(request, choices, cache, { start, decode, reusedTokens })
  } finally {
    if (cache !== request.cache) cache.dispose()
  }
}

/** The result of a whole stream. */
export async function collectText(stream: AsyncIterable<StreamEvent>): Promise<GenerateResult> {
  for await (const event of stream) if (event.type === 'done') return event.result
  throw new Error('unreachable: a stream ends with "done"')
}

async function* streamLanes(model: Generator, request: Request): AsyncGenerator<StreamEvent, void, undefined> {
  const { cache: given, n, signal, format } = request
  const grammar = format && (await compileGrammar(model.tokenizer, model.vocabSize, format))
  const root = given ?? model.createCache()
  const lanes: Lane[] = []
  try {
    const start = performance.now()
    const { logits, reusedTokens } = await readPrompt(model, root, request)
    const decode = performance.now()
    for (let i = 0; i < n; i++) {
      const isRoot = i === 0 && (given === undefined || n === 1)
      const state = await grammar?.start()
      lanes.push(new Lane(i, model.tokenizer, isRoot ? root : root.fork(), request, state))
    }
    if (logits && !signal?.aborted && request.maxNewTokens > 0) {
      for (const lane of lanes) yield* await lane.draw([logits])
      yield* writeOn(model, lanes, signal)
    }
    if (given && n === 1) await lanes[0]!.feedLast(model)
    const choices = lanes.map(({ writer }) => writer.result(signal?.aborted ? 'aborted' : 'length'))
    const reading = { start, decode, reusedTokens }
    yield { type: 'done', result: summarize(request, choices, given ?? lanes[0]!.cache, reading, lanes) }
  } finally {
    for (const lane of lanes) lane.dispose()
    const caches = new Set(lanes.length > 0 ? lanes.map(({ cache }) => cache) : [root])
    for (const cache of caches) if (cache !== given) cache.dispose()
  }
}

/** One step after the other for all texts that have not ended, in one batch. */
async function* writeOn(model: Generator, lanes: readonly Lane[], signal?: AbortSignal): AsyncGenerator<StreamEvent> {
  for (;;) {
    const active = lanes.filter(({ writer }) => writer.finishReason === undefined)
    if (active.length === 0 || signal?.aborted) return
    const batch = active.map((lane) => lane.next())
    const logits = (await model.forward(batch)).data as Float32Array
    let row = 0
    const events: StreamEvent[] = []
    for (const [i, lane] of active.entries()) {
      const rows = batch[i]!.tokens.length
      const { vocabSize } = model
      const part = (r: number) => logits.subarray((row + r) * vocabSize, (row + r + 1) * vocabSize)
      events.push(...(await lane.draw(Array.from({ length: rows }, (_, r) => part(r)))))
      await lane.settle(model)
      row += rows
    }
    yield* events
  }
}

/** No logits: the request was aborted meanwhile. */
async function readPrompt(
  model: Generator,
  cache: KvCache,
  { promptTokens, signal, onPrefill, prefixCache }: Request,
): Promise<FedTokens> {
  const { chunkSize, prefixes } = model
  const options = {
    chunkSize,
    prefixes,
    wantLogits: true,
    signal,
    onPrefill,
    ...(prefixCache !== undefined && { prefixCache }),
  }
  try {
    return await feedTokens(model, cache, promptTokens, options)
  } catch (error) {
    if (isKvasirError(error) && error.code === 'aborted') return { logits: undefined, reusedTokens: 0 }
    throw error
  }
}

function summarize(
  { promptTokens, draftTokens }: Request,
  choices: readonly GeneratedText[],
  cache: KvCache,
  reading: { readonly start: number; readonly decode: number; readonly reusedTokens: number },
  lanes: readonly Lane[] = [],
): GenerateResult {
  const sum = (field: 'drafted' | 'accepted') => lanes.reduce((total, lane) => total + lane[field], 0)
  return {
    ...choices[0]!,
    choices,
    promptTokens: promptTokens.length,
    generatedTokens: choices.reduce((total, { tokens }) => total + tokens.length, 0),
    reusedTokens: reading.reusedTokens,
    prefillMs: reading.decode - reading.start,
    decodeMs: performance.now() - reading.decode,
    kv: cache.getCacheInfo(),
    ...(draftTokens > 0 && { lookup: { drafted: sum('drafted'), accepted: sum('accepted') } }),
  }
}
