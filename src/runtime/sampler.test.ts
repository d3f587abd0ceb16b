import { describe, expect, it } from 'vitest'
import { createRandom } from './random.ts'
import { createSampler } from './sampler.ts'
import {
  applyCountPenalties,
  applyMinP,
  applyRepetitionPenalty,
  applyTemperature,
  applyTopK,
  applyTopP,
  argmax,
  draw,
} from './sampling.ts'

const logits = (): Float32Array => Float32Array.of(3, 2.5, 2, 0.5, -1, 2)

function softmax(values: Float32Array): number[] {
  const weights = Array.from(values, (value) => Math.exp(value))
  const total = weights.reduce((sum, weight) => sum + weight)
  return weights.map((weight) => weight / total)
}

/** Which tokens can still be drawn after `step`. */
function kept(step: (values: Float32Array) => void): number[] {
  const values = logits()
  step(values)
  return [...values.keys()].filter((i) => values[i]! > Number.NEGATIVE_INFINITY)
}

function expectClose(actual: readonly number[], expected: readonly number[]): void {
  for (const [i, value] of expected.entries()) expect(actual[i]).toBeCloseTo(value, 5)
}

describe('sampling steps', () => {
  it('temperature sharpens as published', () => {
    const values = logits()
    applyTemperature(values, 0.5)
    expectClose(softmax(values), [0.607672, 0.22355, 0.08224, 0.004094, 0.000204, 0.08224])
  })

  it('the repetition penalty divides positive and multiplies negative logits, once a token', () => {
    const values = logits()
    applyRepetitionPenalty(values, new Set([0, 4, 0]), 1.3)
    expectClose([...values], [3 / 1.3, 2.5, 2, 0.5, -1.3, 2])
  })

  it('all penalties together, as computed by hand', () => {
    const values = logits()
    applyRepetitionPenalty(values, new Set([0, 4]), 1.3)
    const counts = new Map([
      [0, 3],
      [4, 1],
    ])
    applyCountPenalties(values, counts, 0.2, 0.4)
    expectClose([...values], [0.907692, 2.5, 2, 0.5, -1.9, 2])
    expectClose(softmax(values), [0.079347, 0.389996, 0.236544, 0.05278, 0.004788, 0.236544])
  })

  it('min_p compares with the likeliest', () => {
    expect(kept((values) => applyMinP(values, 0.25))).toEqual([0, 1, 2, 5])
    expect(kept((values) => applyMinP(values, 1))).toEqual([0])
  })

  it('top_k keeps all that tie at the border', () => {
    expect(kept((values) => applyTopK(values, 3))).toEqual([0, 1, 2, 5])
    expect(kept((values) => applyTopK(values, 2))).toEqual([0, 1])
    expect(kept((values) => applyTopK(values, 100))).toEqual([0, 1, 2, 3, 4, 5])
  })

  it('top_p drops the least likely while they are worth at most 1 - p; of equals the lower index goes first', () => {
    const results = [0.5, 0.7, 0.9, 0.95].map((p) => kept((values) => applyTopP(values, p)))
    expect(results).toEqual([
      [0, 1],
      [0, 1, 5],
      [0, 1, 2, 5],
      [0, 1, 2, 5],
    ])
    expect(kept((values) => applyTopP(values, 1e-9))).toEqual([0])
  })

  it('argmax takes the first of equals', () => {
    expect(argmax(Float32Array.of(-5, 2, 2, 1))).toBe(1)
    expect(argmax(Float32Array.of(Number.NEGATIVE_INFINITY, -3))).toBe(1)
  })

  it('draws with the probabilities of softmax and never what was dropped', () => {
    const values = logits()
    applyTopK(values, 3)
    const counts = new Array<number>(6).fill(0)
    const random = createRandom(7)
    for (let n = 0; n < 20_000; n++) counts[draw(values, random)]!++
    const expected = softmax(values)
    for (const [i, probability] of expected.entries()) expect(counts[i]! / 20_000).toBeCloseTo(probability, 1.5)
    expect([counts[3], counts[4]]).toEqual([0, 0])
  })
})

describe('bad words', () => {
  const draws = (badWordsIds: number[][], before: number[], answer: number[] = []): number => {
    const sampler = createSampler({ badWordsIds })
    sampler.observe(before)
    for (const token of answer) sampler.accept(token)
    return sampler.sample(logits())
  }

  it('of one token can never be drawn, longer ones not be completed', () => {
    expect(draws([], [])).toBe(0)
    expect(draws([[0], [1]], [])).toBe(2)
    expect(draws([[4, 0]], [])).toBe(0)
    expect(draws([[4, 0]], [4, 3])).toBe(0)
    expect(draws([[4, 0]], [3, 4])).toBe(1)
    expect(draws([[3, 4, 0]], [3], [4])).toBe(1) // begun in the prompt
    expect(
      draws(
        [
          [3, 4, 0],
          [4, 1],
        ],
        [],
        [5, 3, 4],
      ),
    ).toBe(2)
  })

  it('that leave nothing are an error, not a token', () => {
    expect(() => draws([[0], [1], [2], [3], [4], [5]], [])).toThrow('none that badWordsIds leaves')
  })

  it('are refused where they are no lists of tokens', () => {
    for (const wrong of ['no', [3], [[]], [['a']], [[-1]]]) {
      expect(() => createSampler({ badWordsIds: wrong as number[][] })).toThrow('badWordsIds')
    }
  })
})

describe('random numbers', () => {
  it('repeat with the seed, differ with another, and are uniform', () => {
    const take = (seed?: number): number[] => {
      const random = createRandom(seed)
      return Array.from({ length: 2000 }, random)
    }
    expect(take(1)).toEqual(take(1))
    for (const other of [2, -1, 2 ** 32 + 1, Number.MAX_SAFE_INTEGER]) expect(take(1)).not.toEqual(take(other))
    expect(take()).not.toEqual(take())
    const numbers = take(3)
    expect(numbers.reduce((sum, value) => sum + value) / 2000).toBeCloseTo(0.5, 1)
    expect(Math.min(...numbers)).toBeGreaterThanOrEqual(0)
    expect(Math.max(...numbers)).toBeLessThan(1)
  })
})

describe('the sampler', () => {
  it('is greedy at temperature 0, whatever else is set', () => {
    for (const options of [{}, { temperature: 0, topK: 3, topP: 0.1 }, { temperature: 1e-6 }]) {
      expect(createSampler(options).sample(logits())).toBe(0)
    }
  })

  it('applies the repetition penalty to greedy choices too, only to tokens it was told of', () => {
    const sampler = createSampler({ repetitionPenalty: 2 })
    expect(sampler.sample(logits())).toBe(0)
    sampler.observe([0])
    expect(sampler.sample(logits())).toBe(1)
  })

  it('applies presence and frequency penalties to generated tokens only', () => {
    const sampler = createSampler({ presencePenalty: 0.4, frequencyPenalty: 0.2 })
    sampler.observe([0])
    expect(sampler.sample(logits())).toBe(0)
    sampler.accept(0) // 3 - 0.4 - 0.2 = 2.4
    expect(sampler.sample(logits())).toBe(1)
    const frequency = createSampler({ frequencyPenalty: 0.2 })
    const choices = [0, 1, 2, 3].map(() => {
      const choice = frequency.sample(logits())
      frequency.accept(0)
      return choice
    })
    expect(choices).toEqual([0, 0, 0, 1]) // 3, 2.8, 2.6, 2.4 against 2.5
  })

  it('adds logit bias before penalties', () => {
    expect(createSampler({ logitBias: { 3: 2.1 } }).sample(logits())).toBe(0)
    expect(createSampler({ logitBias: { 3: 2.6 } }).sample(logits())).toBe(3)
    const sampler = createSampler({ logitBias: { 3: 4 }, repetitionPenalty: 2 })
    sampler.observe([0, 3]) // 4.5 / 2 = 2.25 for token 3, not 0.25 + 4
    expect(sampler.sample(logits())).toBe(1)
  })

  it('draws no end token before the least number of tokens, and nothing that is masked', () => {
    const sampler = createSampler({}, { endTokens: [0], minNewTokens: 2 })
    const choices = [1, 1, 1].map((token) => {
      const choice = sampler.sample(logits())
      sampler.accept(token)
      return choice
    })
    expect(choices).toEqual([1, 1, 0])
    const mask = (values: Float32Array) => values.fill(Number.NEGATIVE_INFINITY, 0, 2)
    expect(createSampler({}, { mask }).sample(logits())).toBe(2)
  })

  it('applies temperature before min_p', () => {
    // At temperature 1 token 1 has 0.6 of the likeliest; at 0.25 it has 0.13, so min_p 0.5 leaves token 0 alone.
    const sampler = createSampler({ temperature: 0.25, minP: 0.5, seed: 1 })
    for (let n = 0; n < 200; n++) expect(sampler.sample(logits())).toBe(0)
  })

  it('repeats itself with a seed and leaves the logits alone', () => {
    const draws = (): number[] => {
      const sampler = createSampler({ temperature: 1, seed: 42 })
      return Array.from({ length: 50 }, () => sampler.sample(logits()))
    }
    expect(draws()).toEqual(draws())
    expect(new Set(draws()).size).toBeGreaterThan(2)
    const values = logits()
    createSampler({ temperature: 0.5, topK: 1, repetitionPenalty: 3 }).sample(values)
    expect(values).toEqual(logits())
  })

  it('refuses NaN', () => {
    expect(() => createSampler().sample(Float32Array.of(1, Number.NaN))).toThrow('got NaN for token 1')
  })

  const refused: [Record<string, unknown>, string][] = [
    [{ temperature: -1 }, 'expected a number of at least 0 for temperature, got -1'],
    [{ temperature: Number.NaN }, 'for temperature, got NaN'],
    [{ temperature: Number.POSITIVE_INFINITY }, 'for temperature'],
    [{ temperature: '1' }, 'for temperature, got "1"'],
    [{ topK: 1.5 }, 'for topK'],
    [{ topK: -1 }, 'for topK'],
    [{ topP: 0 }, 'expected a number in (0, 1] for topP, got 0'],
    [{ topP: 1.1 }, 'for topP'],
    [{ minP: -0.1 }, 'for minP'],
    [{ repetitionPenalty: 0 }, 'for repetitionPenalty'],
    [{ seed: 0.5 }, 'for seed'],
    [{ presencePenalty: 2.1 }, 'expected a number in [-2, 2] for presencePenalty, got 2.1'],
    [{ frequencyPenalty: '1' }, 'for frequencyPenalty, got "1"'],
    [{ logitBias: [1] }, 'expected an object from tokens to numbers for logitBias'],
    [{ logitBias: { a: 1 } }, 'expected tokens as keys of logitBias, got "a"'],
    [{ logitBias: { 5: 101 } }, 'expected a number in [-100, 100] for logitBias of token 5, got 101'],
    [{ logitBias: { 5: 'x' } }, 'for logitBias of token 5'],
  ]
  for (const [options, message] of refused) {
    it(`refuses ${JSON.stringify(options)}`, () => {
      expect(() => createSampler(options)).toThrow(message)
    })
  }
})
