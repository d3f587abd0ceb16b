/**
 * Chooses the next token from logits, by the options of one request. The order is that of vLLM: mask (grammar, bad
 * words, end tokens too early), logit bias, penalties; then greedy, or temperature, min_p, top_k, top_p and a draw.
 */
import { invalidArgument, KvasirError } from '../tensor/error.ts'
import type { SamplingOptions } from './contract.ts'
import { createRandom } from './random.ts'
import {
  applyBadWords,
  applyBan,
  applyCountPenalties,
  applyLogitBias,
  applyMinP,
  applyRepetitionPenalty,
  applyTemperature,
  applyTopK,
  applyTopP,
  argmax,
  draw,
} from './sampling.ts'
import { isGreedy, resolveSampling, type Sampling } from './sampling-options.ts'

export interface Sampler {
  /** Draws from `logits` `[V]`, which is left as it was. Throws `internal` on NaN, `invalid-argument` without a choice. */
  sample(logits: Float32Array): number
  /** Tells of tokens that came before: the repetition penalty counts them. */
  observe(tokens: Iterable<number>): void
  /** Tells of a token that was generated: all penalties count it. */
  accept(token: number): void
}

export interface SamplerRules {
  /** Tokens that end a text; they cannot be drawn before `minNewTokens` were accepted. */
  readonly endTokens?: Iterable<number>
  readonly minNewTokens?: number
  /** Makes further tokens impossible, before anything else: what a grammar allows. */
  readonly mask?: (logits: Float32Array) => void
}

/** @throws KvasirError `invalid-argument` naming the option */
export function createSampler(options: SamplingOptions = {}, rules: SamplerRules = {}): Sampler {
  return startSampler(resolveSampling(options), rules)
}

/** The same, of options that are checked. */
export function startSampler(sampling: Sampling, rules: SamplerRules): Sampler {
  const random = createRandom(sampling.seed)
  const adjuster = createAdjuster(sampling, rules)
  return {
    sample(logits) {
      checkNumbers(logits)
      const values = logits.slice()
      adjuster.adjust(values)
      if (sampling.badWordsIds.length > 0) checkChoice(values)
      return isGreedy(sampling) ? argmax(values) : drawFrom(values, sampling, random)
    },
    observe: adjuster.observe,
    accept: adjuster.accept,
  }
}

/** What comes before the choice between greedy and drawing; beam search uses it alone. */
export interface Adjuster extends Pick<Sampler, 'observe' | 'accept'> {
  /** Changes `logits` `[V]` in place. */
  adjust(logits: Float32Array): void
  /** A copy that goes its own way. */
  fork(): Adjuster
}

/** What came before the token that is drawn next. */
interface Past {
  /** Of prompt and answer. */
  readonly seen: Set<number>
  /** How often each token is in the answer. */
  readonly counts: Map<number, number>
  /** The end of prompt and answer, as far as bad words reach back. */
  readonly end: number[]
  accepted: number
}

const nothing = (): Past => ({ seen: new Set(), counts: new Map(), end: [], accepted: 0 })

export function createAdjuster(sampling: Sampling, rules: SamplerRules, past = nothing()): Adjuster {
  const { repetitionPenalty, presencePenalty, frequencyPenalty, logitBias, badWordsIds } = sampling
  const { endTokens = [], minNewTokens = 0, mask } = rules
  const { seen, counts, end } = past
  const reach = badWordsIds.reduce((most, { length }) => Math.max(most, length - 1), 0)
  const note = (token: number): void => {
    seen.add(token)
    if (reach > 0 && end.push(token) > reach) end.shift()
  }
  return {
    adjust(logits) {
      mask?.(logits)
      applyBadWords(logits, end, badWordsIds)
      if (past.accepted < minNewTokens) applyBan(logits, endTokens)
      applyLogitBias(logits, logitBias)
      if (repetitionPenalty !== 1) applyRepetitionPenalty(logits, seen, repetitionPenalty)
      if (presencePenalty || frequencyPenalty) applyCountPenalties(logits, counts, presencePenalty, frequencyPenalty)
    },
    observe(tokens) {
      for (const token of tokens) note(token)
    },
    accept(token) {
      note(token)
      counts.set(token, (counts.get(token) ?? 0) + 1)
      past.accepted++
    },
    fork: () => {
      const copy = { seen: new Set(seen), counts: new Map(counts), end: [...end], accepted: past.accepted }
      return createAdjuster(sampling, rules, copy)
    },
  }
}

function drawFrom(logits: Float32Array, { temperature, minP, topK, topP }: Sampling, random: () => number): number {
  applyTemperature(logits, temperature)
  if (minP > 0) applyMinP(logits, minP)
  if (topK > 0) applyTopK(logits, topK)
  if (topP < 1) applyTopP(logits, topP)
  return draw(logits, random)
}

function checkNumbers(logits: Float32Array): void {
  for (let i = 0; i < logits.length; i++) {
    if (!Number.isNaN(logits[i])) continue
    throw new KvasirError('internal', 'sampler', `expected numbers as logits, got NaN for token ${i}`)
  }
}

function checkChoice(logits: Float32Array): void {
  if (logits[argmax(logits)]! > Number.NEGATIVE_INFINITY) return
  throw invalidArgument('sampler', 'expected a token that can be drawn, got none that badWordsIds leaves')
}
