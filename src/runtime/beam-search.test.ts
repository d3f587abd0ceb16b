/** Beam search against exhaustive search, and against a slow version of the definition that has no caches. */
import { describe, expect, it } from 'vitest'
import type { GenerateOptions } from './contract.ts'
import { generateText } from './generate.ts'
import { createTableModel, type TableModel } from './testing/table-model.ts'

const prompt = [1, 2]

interface Text {
  readonly tokens: readonly number[]
  readonly sum: number
}

function logSoftmax(logits: Float32Array): number[] {
  const total = Math.log([...logits].reduce((sum, logit) => sum + Math.exp(logit), 0))
  return Array.from(logits, (logit) => logit - total)
}

/** Every text of at most `maxNewTokens` tokens. */
function allTexts(model: TableModel, maxNewTokens: number, text: Text = { tokens: [], sum: 0 }): Text[] {
  if (text.tokens.length === maxNewTokens || text.tokens.at(-1) === 0) return [text]
  const next = logSoftmax(model.logitsAfter([...prompt, ...text.tokens]))
  return next.flatMap((logprob, token) =>
    allTexts(model, maxNewTokens, { tokens: [...text.tokens, token], sum: text.sum + logprob }),
  )
}

/** The search of transformers (BeamSearchScorer), in plain lists. */
function slowSearch(model: TableModel, options: GenerateOptions): { tokens: readonly number[]; score: number }[] {
  const { numBeams = 1, lengthPenalty = 1, earlyStopping = false, maxNewTokens = 8, n = 1 } = options
  const score = (sum: number, length: number): number => sum / length ** lengthPenalty
  let open: Text[] = [{ tokens: [], sum: 0 }]
  let done: { tokens: readonly number[]; score: number }[] = []
  let isDone = false
  const add = ({ tokens, sum }: Text): void => {
    done = [...done, { tokens, score: score(sum, tokens.length) }].sort((a, b) => b.score - a.score).slice(0, numBeams)
  }
  for (let length = 1; length <= maxNewTokens && !isDone; length++) {
    const candidates = open
      .flatMap(({ tokens, sum }) =>
        logSoftmax(model.logitsAfter([...prompt, ...tokens])).map((p, token) => ({
          tokens: [...tokens, token],
          sum: sum + p,
        })),
      )
      .sort((a, b) => b.sum - a.sum)
      .slice(0, 2 * numBeams)
    for (const candidate of candidates.slice(0, numBeams)) if (candidate.tokens.at(-1) === 0) add(candidate)
    open = candidates.filter(({ tokens }) => tokens.at(-1) !== 0).slice(0, numBeams)
    if (done.length < numBeams) continue
    const bound = earlyStopping === 'never' && lengthPenalty > 0 ? maxNewTokens : length
    isDone = earlyStopping === true || done.at(-1)!.score >= score(candidates[0]!.sum, bound)
  }
  if (!isDone) for (const text of open) add(text)
  return done.slice(0, n)
}

describe('beam search', () => {
  it('with as many beams as there are texts finds the best of all', async () => {
    for (const seed of [1, 2, 3, 4]) {
      for (const lengthPenalty of [0, 1, 2]) {
        const model = createTableModel({ vocabSize: 4, seed })
        const texts = allTexts(model, 4).map(({ tokens, sum }) => ({
          tokens,
          score: sum / tokens.length ** lengthPenalty,
        }))
        const best = texts.reduce((a, b) => (b.score > a.score ? b : a))
        const options = { numBeams: 256, lengthPenalty, earlyStopping: 'never', maxNewTokens: 4 } as const
        const result = await generateText(model, prompt, options)
        expect(result.tokens).toEqual(best.tokens)
        expect(result.score).toBeCloseTo(best.score, 4)
        expect(model.open.size).toBe(0)
      }
    }
  })

  it('gives the texts of the slow version, for every way to stop', async () => {
    let differing = 0
    for (let seed = 1; seed <= 25; seed++) {
      for (const earlyStopping of [true, false, 'never'] as const) {
        const model = createTableModel({ vocabSize: 7, seed, endBias: 0.5, canTruncate: false })
        const options = {
          numBeams: 3,
          n: 3,
          lengthPenalty: [0.5, 1, 1.7, -1][seed % 4],
          earlyStopping,
          maxNewTokens: 8,
        }
        const { choices } = await generateText(model, prompt, options)
        const expected = slowSearch(model, options)
        expect(choices.map(({ tokens }) => tokens)).toEqual(expected.map(({ tokens }) => tokens))
        for (const [i, { score }] of expected.entries()) expect(choices[i]!.score).toBeCloseTo(score, 4)
        const greedy = await generateText(model, prompt, { maxNewTokens: 8 })
        if (JSON.stringify(greedy.tokens) !== JSON.stringify(choices[0]!.tokens)) differing++
        expect(model.open.size).toBe(0)
      }
    }
    expect(differing).toBeGreaterThan(10)
  })

  it('finds texts that are at least as likely as the greedy one', async () => {
    for (let seed = 1; seed <= 10; seed++) {
      const model = createTableModel({ seed, endBias: -100 })
      const score = async (options: GenerateOptions) => {
        const { tokens } = await generateText(model, prompt, { ...options, maxNewTokens: 6 })
        return tokens.reduce(
          (sum, token, i) => sum + logSoftmax(model.logitsAfter([...prompt, ...tokens.slice(0, i)]))[token]!,
          0,
        )
      }
      expect(await score({ numBeams: 6 })).toBeGreaterThanOrEqual(await score({}))
    }
  })

  it('ends a beam at a stop text, gives log probabilities, and leaves a given cache alone', async () => {
    const model = createTableModel({ seed: 5, endBias: -100 })
    const whole = await generateText(model, prompt, { numBeams: 2, maxNewTokens: 8 })
    const stop = whole.text.slice(2, 4)
    const cache = model.createCache()
    const options = { numBeams: 2, maxNewTokens: 8, stop, logprobs: 1, cache, lengthPenalty: 8 }
    const { choices } = await generateText(model, prompt, options)
    for (const { text, tokens, logprobs } of choices) {
      expect(text).not.toContain(stop)
      expect(logprobs!.map(({ token }) => token)).toEqual(tokens)
    }
    expect([...model.open].map(({ tokens }) => tokens)).toEqual([prompt])
  })

  it('processes log probabilities: what is banned is in no beam', async () => {
    const model = createTableModel({ seed: 2, endBias: 3 })
    const options = { numBeams: 4, n: 4, minNewTokens: 3, logitBias: { 3: -100 }, maxNewTokens: 6 }
    const { choices } = await generateText(model, prompt, options)
    for (const { tokens } of choices) {
      expect(tokens).not.toContain(3)
      expect(tokens.length).toBeGreaterThan(3)
    }
  })
})
