/** Options that shape a text, as the commands that write texts share them. */
import { InvalidArgumentError, Option } from 'commander'
import { readJson } from '../onnx/index.ts'
import type { GenerateOptions, SamplingOptions, TextTokenizer, TurnOptions } from '../runtime/contract.ts'
import { describe } from '../tensor/check.ts'
import { invalidArgument, KvasirError } from '../tensor/error.ts'
import { helpGroups, integer, integers, number, seedOption } from './options.ts'

/** What shapes a text. */
export const samplingOptions = (): Option[] => unsorted().map((option) => option.helpGroup(helpGroups.text))

const unsorted = (): Option[] => [
  new Option('--max-tokens <number>', 'most new tokens; 0 only reads (default: 128)').argParser(integer(0)),
  new Option('--min-tokens <number>', 'no end before so many').argParser(integer(0)),
  new Option('--temperature <number>', '0 takes the likeliest token').argParser(number(0)),
  new Option('--top-k <number>', 'sample from so many tokens').argParser(integer(1)),
  new Option('--top-p <number>', 'sample from this share of probability').argParser(number(0, 1, true)),
  new Option('--min-p <number>', 'least share of the best probability').argParser(number(0, 1)),
  new Option('--repetition-penalty <number>', 'above 1 discourages').argParser(number(0, Infinity, true)),
  new Option('--presence-penalty <number>', 'above 0 discourages what was written').argParser(number(-2, 2)),
  new Option('--frequency-penalty <number>', 'the same, by how often').argParser(number(-2, 2)),
  new Option('--logit-bias <token=value...>', 'added to the logits of tokens').argParser(bias),
  new Option('--bad-words <text...>', 'never written: these words, first in the text and after a space'),
  new Option('--bad-words-ids <ids...>', 'never written: these tokens, as in 42 or 5,7,9').argParser(badWords),
  seedOption('makes sampling repeatable'),
  new Option('--stop <text...>', 'end before any of these'),
  new Option('--stop-token <id...>', 'end at any of these tokens').argParser(integers(0)),
  new Option('--include-stop', 'keep the text that ended it'),
  new Option('--ignore-eos', 'go on after an end token'),
  new Option('--json-schema <file>', 'write only JSON of this schema'),
  new Option('--prompt-lookup <tokens>', 'draft so many tokens from the text so far').argParser(integer(0, 256)),
]

/** Those that are called as the library calls them, and the others. */
export interface SamplingFlags extends SamplingOptions, Pick<GenerateOptions, 'stop' | 'includeStop' | 'ignoreEos'> {
  readonly maxTokens?: number
  readonly minTokens?: number
  readonly badWords?: readonly string[]
  readonly stopToken?: readonly number[]
  readonly jsonSchema?: string
  readonly promptLookup?: number
}

/**
 * Only what was given, so that the defaults of model and library hold for the rest.
 * @throws KvasirError `not-found` or `invalid-file` for the file of a schema, `invalid-argument` for empty words
 */
export async function toSampling(flags: SamplingFlags, tokenizer: Pick<TextTokenizer, 'encode'>): Promise<TurnOptions> {
  const { maxTokens, minTokens, temperature, topK, topP, minP, repetitionPenalty, presencePenalty } = flags
  const { frequencyPenalty, logitBias, seed, stop, stopToken, includeStop, ignoreEos, promptLookup } = flags
  const all: TurnOptions = {
    maxNewTokens: maxTokens,
    minNewTokens: minTokens,
    ...{ temperature, topK, topP, minP, repetitionPenalty, presencePenalty, frequencyPenalty, logitBias, seed },
    badWordsIds: bannedTokens(flags, tokenizer),
    ...{ stop, stopTokens: stopToken, includeStop, ignoreEos, promptLookupTokens: promptLookup },
    responseFormat: flags.jsonSchema === undefined ? undefined : { jsonSchema: await readSchema(flags.jsonSchema) },
  }
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined))
}

function bannedTokens({ badWords: words, badWordsIds: ids }: SamplingFlags, tokenizer: Pick<TextTokenizer, 'encode'>) {
  if (words?.some((word) => word.trim() === '')) throw invalidArgument('cli', 'expected words for --bad-words, got ""')
  // Most vocabularies have one token for a word at the beginning of a text and another for it behind a space.
  const spellings = words?.flatMap((word) => [word.trim(), ` ${word.trim()}`])
  const spelled = spellings?.map((text) => tokenizer.encode(text, { addSpecialTokens: false }))
  return ids || spelled ? [...(ids ?? []), ...(spelled ?? [])] : undefined
}

async function readSchema(file: string): Promise<object> {
  const value = await readJson(file)
  if (typeof value === 'object' && value !== null) return value
  throw new KvasirError('invalid-file', 'cli', `${file}: expected a JSON schema, got ${describe(value)}`)
}

function bias(text: string, before: Record<number, number> = {}): Record<number, number> {
  const [, token, value] = /^(\d+)=([-+]?[\d.]+)$/.exec(text) ?? []
  if (token !== undefined && Number.isFinite(Number(value))) return { ...before, [token]: Number(value) }
  throw new InvalidArgumentError('Expected a token and a number, such as 42=-5.')
}

function badWords(text: string, before: number[][] = []): number[][] {
  return [...before, integers(0)(text, [])]
}
