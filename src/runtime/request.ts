/** What a call of `generate` asks for: options checked, defaults of the model filled in, the prompt as tokens. */
import type { KvCache } from '../cache/contract.ts'
import type { SharedPrefixes } from '../cache/prefix/shared-prefixes.ts'
import { checkInteger, checkKeys, describe } from '../tensor/check.ts'
import { invalidArgument, KvasirError } from '../tensor/error.ts'
import { checkTokens } from './batch.ts'
import type { CausalLM, GenerateOptions, GenerationDefaults, PrefixChoice, Prompt, ResponseFormat } from './contract.ts'
import { checkFormat } from './grammar.ts'
import { checkPrefixChoice } from './prefix-choice.ts'
import { chatKeys, tokenizePrompt } from './prompt.ts'
import { isGreedy, resolveSampling, type Sampling, samplingKeys } from './sampling-options.ts'
import type { WriterOptions } from './writer.ts'

/** What generation needs of a model. */
export interface Generator extends Pick<CausalLM, 'forward' | 'createCache' | 'tokenizer' | 'vocabSize'> {
  readonly chunkSize: number
  readonly prefixes?: SharedPrefixes | undefined
  readonly generationDefaults?: GenerationDefaults
}

export interface Request extends WriterOptions {
  readonly minNewTokens: number
  readonly promptTokens: readonly number[]
  readonly sampling: Sampling
  readonly n: number
  readonly numBeams: number
  readonly lengthPenalty: number
  readonly earlyStopping: boolean | 'never'
  readonly draftTokens: number
  readonly maxNgram: number
  readonly format: ResponseFormat | undefined
  /** The caller's, who keeps it. */
  readonly cache: KvCache | undefined
  readonly signal: AbortSignal | undefined
  readonly onPrefill: GenerateOptions['onPrefill']
  readonly prefixCache: PrefixChoice | undefined
}

const keys = [
  'maxNewTokens',
  'minNewTokens',
  'stop',
  'stopTokens',
  'includeStop',
  'ignoreEos',
  'n',
  'logprobs',
  'numBeams',
  'lengthPenalty',
  'earlyStopping',
  'promptLookupTokens',
  'maxMatchingNgram',
  'responseFormat',
  'signal',
  'cache',
  'onPrefill',
  'prefixCache',
  ...chatKeys,
  ...samplingKeys,
]

const maxLogprobs = 100

/** @throws KvasirError `invalid-argument` naming the option, or what is wrong with the prompt */
export function readRequest(model: Generator, prompt: Prompt, given: GenerateOptions): Request {
  checkKeys('generate', 'generation', given, keys)
  const options = { ...defaultsFor(model, given), ...withoutUndefined(given) }
  const { maxNewTokens = 128, minNewTokens = 0, n = 1, logprobs, numBeams = 1, lengthPenalty = 1 } = options
  const { promptLookupTokens = 0, maxMatchingNgram = 3, earlyStopping = false, stopTokens = [] } = options
  checkTextOptions(options)
  // The model's own default may be more than a caller's maximum.
  checkInteger('generate', 'minNewTokens', given.minNewTokens ?? 0, 0, maxNewTokens)
  checkInteger('generate', 'n', n, 1, 1024)
  if (logprobs !== undefined) checkInteger('generate', 'logprobs', logprobs, 0, Math.min(maxLogprobs, model.vocabSize))
  checkInteger('generate', 'numBeams', numBeams, 1, 1024)
  if (!Array.isArray(stopTokens)) {
    throw invalidArgument('generate', `expected an array of tokens for stopTokens, got ${describe(stopTokens)}`)
  }
  for (const token of stopTokens) checkInteger('generate', 'stopTokens', token, 0, model.vocabSize - 1)
  const sampling = resolveSampling(pick(options, samplingKeys), model.vocabSize)
  checkCount(n, numBeams, promptLookupTokens, sampling)
  const promptTokens = tokenizePrompt(model.tokenizer, prompt, pick(options, chatKeys))
  checkTokens(promptTokens, model.vocabSize)
  return {
    promptTokens,
    sampling,
    n,
    maxNewTokens,
    minNewTokens: Math.min(minNewTokens, maxNewTokens),
    stops: stopList(options.stop),
    endTokens: new Set([...(options.ignoreEos ? [] : model.tokenizer.eosTokens), ...stopTokens]),
    includeStop: options.includeStop === true,
    logprobs,
    numBeams,
    lengthPenalty,
    earlyStopping,
    draftTokens: promptLookupTokens,
    maxNgram: maxMatchingNgram,
    format: checkedFormat(model, options, numBeams),
    cache: options.cache,
    signal: options.signal,
    onPrefill: options.onPrefill,
    prefixCache: checkPrefixChoice(options.prefixCache),
  }
}

/** @throws KvasirError `invalid-argument` naming the default that generation does not take */
export function checkDefaults(defaults: GenerationDefaults, vocabSize?: number): void {
  checkTextOptions(defaults)
  resolveSampling(defaults, vocabSize)
}

/** What is checked alike in options of a call and in defaults of a model. */
function checkTextOptions(options: GenerationDefaults): void {
  const { maxNewTokens = 0, minNewTokens = 0, lengthPenalty = 1, earlyStopping = false } = options
  checkInteger('generate', 'maxNewTokens', maxNewTokens, 0)
  checkInteger('generate', 'minNewTokens', minNewTokens, 0)
  checkInteger('generate', 'promptLookupTokens', options.promptLookupTokens ?? 0, 0, 256)
  checkInteger('generate', 'maxMatchingNgram', options.maxMatchingNgram ?? 1, 1, 64)
  stopList(options.stop)
  if (typeof earlyStopping !== 'boolean' && earlyStopping !== 'never') {
    const message = `expected true, false or "never" for earlyStopping, got ${describe(earlyStopping)}`
    throw invalidArgument('generate', message)
  }
  if (Number.isFinite(lengthPenalty)) return
  throw invalidArgument('generate', `expected a finite number for lengthPenalty, got ${describe(lengthPenalty)}`)
}

/** Of the model's own defaults those that fit what is asked for: beams are not sampled, a grammar says where texts end. */
function defaultsFor({ generationDefaults = {} }: Generator, { numBeams = 1, responseFormat }: GenerateOptions) {
  const { temperature, promptLookupTokens, minNewTokens, stop, ...rest } = generationDefaults
  return withoutUndefined({
    ...rest,
    ...(numBeams === 1 && { temperature, promptLookupTokens }),
    ...(responseFormat === undefined && { minNewTokens, stop }),
  })
}

/** Options that contradict each other. */
function checkCount(n: number, numBeams: number, draftTokens: number, sampling: Sampling): void {
  if (numBeams === 1) {
    if (n === 1 || !isGreedy(sampling)) return
    throw invalidArgument('generate', `expected a temperature above 0 for n = ${n}: at 0 all texts are the same`)
  }
  if (n > numBeams) throw invalidArgument('generate', `expected n of at most numBeams = ${numBeams}, got ${n}`)
  if (!isGreedy(sampling)) {
    throw invalidArgument('generate', `expected temperature 0 with numBeams, got ${sampling.temperature}`)
  }
  if (draftTokens > 0) throw invalidArgument('generate', 'expected either numBeams or promptLookupTokens, got both')
}

/** A grammar ends its texts itself, by an EOS. */
function checkedFormat({ tokenizer }: Generator, options: GenerateOptions, numBeams: number) {
  const { responseFormat: format, ignoreEos, minNewTokens = 0 } = options
  if (format === undefined) return undefined
  checkFormat(format)
  if (numBeams > 1) throw invalidArgument('generate', 'expected either numBeams or responseFormat, got both')
  if (ignoreEos || minNewTokens > 0) {
    throw invalidArgument(
      'generate',
      'expected responseFormat without ignoreEos and minNewTokens: it says where texts end',
    )
  }
  if (tokenizer.eosTokens.length > 0) return format
  throw new KvasirError('unsupported', 'generate', 'expected a model with an end token for responseFormat, got none')
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

function withoutUndefined(options: { readonly [K in keyof GenerateOptions]?: GenerateOptions[K] | undefined }) {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as GenerateOptions
}
