/** Chooses the next token from logits, by the options of one request. */
import { checkInteger, describe } from '../tensor/check.ts'
import { invalidArgument, KvasirError } from '../tensor/error.ts'
import type { SamplingOptions } from './contract.ts'
import { createRandom } from './random.ts'
import { applyMinP, applyRepetitionPenalty, applyTemperature, applyTopK, applyTopP, argmax, draw } from './sampling.ts'

export interface Sampler {
  /** Draws from `logits` `[V]`, which is left as it was. Throws `internal` on NaN. */
  sample(logits: Float32Array): number
  /** Tells of tokens that are in the text now, for the repetition penalty. */
  observe(tokens: Iterable<number>): void
}

export const samplingKeys = ['temperature', 'topK', 'topP', 'minP', 'repetitionPenalty', 'seed'] as const

/** Below this, temperature means greedy: dividing by it would overflow. */
const smallestTemperature = 1e-5

/** @throws KvasirError `invalid-argument` naming the option */
export function createSampler(options: SamplingOptions = {}): Sampler {
  checkSampling(options)
  const { temperature = 0, topK = 0, topP = 1, minP = 0, repetitionPenalty = 1, seed } = options
  const random = createRandom(seed)
  const seen = new Set<number>()
  const choose = (logits: Float32Array): number => {
    if (repetitionPenalty !== 1) applyRepetitionPenalty(logits, seen, repetitionPenalty)
    if (temperature < smallestTemperature) return argmax(logits)
    applyTemperature(logits, temperature)
    if (minP > 0) applyMinP(logits, minP)
    if (topK > 0) applyTopK(logits, topK)
    if (topP < 1) applyTopP(logits, topP)
    return draw(logits, random)
  }
  return {
    sample(logits) {
      const nan = logits.findIndex(Number.isNaN)
      if (nan >= 0) throw new KvasirError('internal', 'sampler', `expected numbers as logits, got NaN for token ${nan}`)
      return choose(logits.slice())
    },
    observe(tokens) {
      for (const token of tokens) seen.add(token)
    },
  }
}

function checkSampling(options: SamplingOptions): void {
  const { temperature = 0, topK = 0, topP = 1, minP = 0, repetitionPenalty = 1, seed } = options
  checkRange('temperature', temperature, 'of at least 0', temperature >= 0 && temperature < Number.POSITIVE_INFINITY)
  checkInteger('sampler', 'topK', topK, 0)
  checkRange('topP', topP, 'in (0, 1]', topP > 0 && topP <= 1)
  checkRange('minP', minP, 'in [0, 1]', minP >= 0 && minP <= 1)
  const isPenalty = repetitionPenalty > 0 && repetitionPenalty < Number.POSITIVE_INFINITY
  checkRange('repetitionPenalty', repetitionPenalty, 'above 0', isPenalty)
  if (seed !== undefined) checkInteger('sampler', 'seed', seed, Number.MIN_SAFE_INTEGER)
}

function checkRange(name: string, value: unknown, range: string, isInside: boolean): void {
  if (typeof value === 'number' && isInside) return
  throw invalidArgument('sampler', `expected a number ${range} for ${name}, got ${describe(value)}`)
}
