/** Checks of the options that shape sampling, and what each is when it is left out. */
import { checkInteger, describe } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import type { SamplingOptions } from './contract.ts'

export const samplingKeys = [
  'temperature',
  'topK',
  'topP',
  'minP',
  'repetitionPenalty',
  'presencePenalty',
  'frequencyPenalty',
  'logitBias',
  'badWordsIds',
  'seed',
] as const

/** Every option of one request, with its default. */
export interface Sampling {
  readonly temperature: number
  readonly topK: number
  readonly topP: number
  readonly minP: number
  readonly repetitionPenalty: number
  readonly presencePenalty: number
  readonly frequencyPenalty: number
  readonly logitBias: ReadonlyMap<number, number>
  readonly badWordsIds: readonly (readonly number[])[]
  readonly seed: number | undefined
}

/** Below this, temperature means greedy: dividing by it would overflow. */
const smallestTemperature = 1e-5

/** @throws KvasirError `invalid-argument` naming the option */
export function resolveSampling(options: SamplingOptions, vocabSize = Number.MAX_SAFE_INTEGER): Sampling {
  const { temperature = 0, topK = 0, topP = 1, minP = 0, repetitionPenalty = 1, seed } = options
  const { presencePenalty = 0, frequencyPenalty = 0, logitBias, badWordsIds = [] } = options
  checkRange('temperature', temperature, 'of at least 0', temperature >= 0 && temperature < Number.POSITIVE_INFINITY)
  checkInteger('sampler', 'topK', topK, 0)
  checkRange('topP', topP, 'in (0, 1]', topP > 0 && topP <= 1)
  checkRange('minP', minP, 'in [0, 1]', minP >= 0 && minP <= 1)
  const isPenalty = repetitionPenalty > 0 && repetitionPenalty < Number.POSITIVE_INFINITY
  checkRange('repetitionPenalty', repetitionPenalty, 'above 0', isPenalty)
  checkRange('presencePenalty', presencePenalty, 'in [-2, 2]', Math.abs(presencePenalty) <= 2)
  checkRange('frequencyPenalty', frequencyPenalty, 'in [-2, 2]', Math.abs(frequencyPenalty) <= 2)
  if (seed !== undefined) checkInteger('sampler', 'seed', seed, Number.MIN_SAFE_INTEGER)
  return {
    temperature,
    topK,
    topP,
    minP,
    repetitionPenalty,
    presencePenalty,
    frequencyPenalty,
    logitBias: readBias(logitBias, vocabSize),
    badWordsIds: readBadWords(badWordsIds, vocabSize),
    seed,
  }
}

/** Whether the likeliest token is taken, and nothing is drawn. */
export function isGreedy({ temperature }: Pick<Sampling, 'temperature'>): boolean {
  return temperature < smallestTemperature
}

/** Keys are token ids, as numbers or as the strings that JSON makes of them. */
function readBias(bias: unknown, vocabSize: number): ReadonlyMap<number, number> {
  if (bias === undefined) return new Map()
  if (typeof bias !== 'object' || bias === null || Array.isArray(bias)) {
    throw invalidArgument('sampler', `expected an object from tokens to numbers for logitBias, got ${describe(bias)}`)
  }
  return new Map(
    Object.entries(bias).map(([key, value]: [string, unknown]) => {
      const token = key.trim() === '' ? Number.NaN : Number(key)
      if (!Number.isInteger(token)) {
        throw invalidArgument('sampler', `expected tokens as keys of logitBias, got ${describe(key)}`)
      }
      checkInteger('sampler', 'a token of logitBias', token, 0, vocabSize - 1)
      checkRange(`logitBias of token ${key}`, value, 'in [-100, 100]', Math.abs(value as number) <= 100)
      return [token, value as number]
    }),
  )
}

function readBadWords(words: unknown, vocabSize: number): readonly (readonly number[])[] {
  const isList = Array.isArray(words) && words.every((word) => Array.isArray(word) && word.length > 0)
  if (!isList) {
    throw invalidArgument('sampler', `expected arrays of tokens, none empty, for badWordsIds, got ${describe(words)}`)
  }
  const list = words as readonly (readonly number[])[]
  for (const token of list.flat()) checkInteger('sampler', 'a token of badWordsIds', token, 0, vocabSize - 1)
  return list
}

function checkRange(name: string, value: unknown, range: string, isInside: boolean): void {
  if (typeof value === 'number' && isInside) return
  throw invalidArgument('sampler', `expected a number ${range} for ${name}, got ${describe(value)}`)
}
