/**
 * Beam search as transformers defines it: log probabilities are processed (bias, penalties) and summed; each step looks
 * at the best candidates of all beams; those that end become texts, scored by sum / length ** lengthPenalty; the best
 * `numBeams` of the others go on.
 */
import type { KvCache } from '../cache/contract.ts'
import type { GeneratedText, TokenLogprob } from './contract.ts'
import { FinishedBeams, type Hypothesis } from './finished-beams.ts'
import { tokenLogprob } from './logprobs.ts'
import type { Generator, Request } from './request.ts'
import { type Adjuster, createAdjuster } from './sampler.ts'
import { largest, logSumExp } from './sampling.ts'
import { createWriter } from './writer.ts'

/** A text that goes on. */
interface Beam extends Hypothesis {
  readonly adjuster: Adjuster
  readonly cache: KvCache
}

/** A beam and one more token. */
interface Candidate {
  readonly parent: number
  readonly token: number
  readonly sum: number
}

/**
 * The `n` best texts after a prompt that `root` holds and whose logits are `first` `[V]`. `root` stays as it is.
 * Without `first` (the prompt was not read to its end) all texts are empty.
 */
export async function searchBeams(
  model: Generator,
  root: KvCache,
  request: Request,
  first: Float32Array | undefined,
): Promise<GeneratedText[]> {
  const finished = new FinishedBeams(request)
  const adjuster = createAdjuster(request.sampling, request)
  adjuster.observe(request.promptTokens)
  const start: Beam = { tokens: [], sum: 0, logprobs: [], adjuster, cache: root }
  let beams: Beam[] = [start]
  let rows = first && [first]
  try {
    for (let length = 1; rows && length <= request.maxNewTokens && !request.signal?.aborted; length++) {
      const candidates = rankCandidates(beams, rows, request)
      const next = sortOut(model, beams, rows, candidates, request, finished)
      beams = passCachesOn(beams, next, root)
      if (beams.length === 0 || finished.isDone(candidates[0]?.sum ?? Number.NEGATIVE_INFINITY, length)) break
      if (length < request.maxNewTokens) rows = await step(model, beams)
    }
    for (const beam of beams) if (!finished.isClosed) finished.add(beam)
  } finally {
    for (const { cache } of beams) if (cache !== root) cache.dispose()
  }
  return finished.best(request.n).map((beam) => write(model, beam, request))
}

/** The best candidates of all beams: enough that `numBeams` are left when the others end. */
function rankCandidates(beams: readonly Beam[], rows: readonly Float32Array[], request: Request): Candidate[] {
  const count = request.numBeams * Math.max(2, 1 + request.endTokens.size)
  return beams
    .flatMap(({ sum, adjuster }, parent) => {
      const scores = rows[parent]!.slice()
      const total = logSumExp(scores)
      for (let i = 0; i < scores.length; i++) scores[i] = scores[i]! - total
      adjuster.adjust(scores)
      return largest(scores, count).map((token) => ({ parent, token, sum: sum + scores[token]! }))
    })
    .filter(({ sum }) => sum > Number.NEGATIVE_INFINITY)
    .sort((a, b) => b.sum - a.sum)
    .slice(0, count)
}

interface Next extends Hypothesis {
  readonly parent: number
}

/** Candidates that end a text go to `finished`, when they are among the best; the best of the others are returned. */
function sortOut(
  model: Generator,
  beams: readonly Beam[],
  rows: readonly Float32Array[],
  candidates: readonly Candidate[],
  request: Request,
  finished: FinishedBeams,
): Next[] {
  const next: Next[] = []
  for (const [rank, { parent, token, sum }] of candidates.entries()) {
    const { tokens: before, logprobs } = beams[parent]!
    const tokens = [...before, token]
    const isEnd = request.endTokens.has(token) || endsByText(model, tokens, request)
    if (isEnd && rank >= request.numBeams) continue
    const added = logprobsAfter(logprobs, rows[parent]!, token, request)
    if (isEnd) finished.add({ tokens, sum, logprobs: added })
    else next.push({ parent, tokens, sum, logprobs: added })
    if (next.length === request.numBeams) break
  }
  return next
}

function logprobsAfter(
  before: readonly TokenLogprob[],
  logits: Float32Array,
  token: number,
  { logprobs }: Request,
): readonly TokenLogprob[] {
  return logprobs === undefined ? [] : [...before, tokenLogprob(logits, token, logprobs)]
}

function endsByText({ tokenizer }: Generator, tokens: readonly number[], { stops }: Request): boolean {
  if (stops.length === 0) return false
  const text = tokenizer.decode(tokens)
  return stops.some((stop) => text.includes(stop))
}

/** The first child of a beam takes its cache over, the others fork it; a cache without children goes. */
function passCachesOn(beams: readonly Beam[], next: readonly Next[], root: KvCache): Beam[] {
  const heirs = new Set<number>()
  const children = next.map(({ parent, ...rest }): Beam => {
    const { cache, adjuster } = beams[parent]!
    const takesOver = cache !== root && !heirs.has(parent)
    heirs.add(parent)
    const own = adjuster.fork()
    own.accept(rest.tokens.at(-1)!)
    return { ...rest, adjuster: own, cache: takesOver ? cache : cache.fork() }
  })
  for (const [i, { cache }] of beams.entries()) if (cache !== root && !heirs.has(i)) cache.dispose()
  return children
}

async function step(model: Generator, beams: readonly Beam[]): Promise<Float32Array[]> {
  const logits = await model.forward(beams.map(({ cache, tokens }) => ({ cache, tokens: [tokens.at(-1)!] })))
  const data = logits.data as Float32Array
  return beams.map((_, i) => data.subarray(i * model.vocabSize, (i + 1) * model.vocabSize))
}

/** The text of a beam, with stop texts cut off. */
function write(model: Generator, beam: Hypothesis & { readonly score: number }, request: Request): GeneratedText {
  const writer = createWriter(model.tokenizer, { ...request, logprobs: undefined })
  const nothing = new Float32Array()
  for (const token of beam.tokens) writer.push(token, nothing)
  const result = writer.result(request.signal?.aborted ? 'aborted' : 'length')
  return { ...result, score: beam.score, ...(request.logprobs !== undefined && { logprobs: beam.logprobs }) }
}
