/**
 * Compares caches of one model: each reads the same texts by itself, then the same continuations, and at each token of
 * those its next-token logits are set beside those of a reference. Continuations go token by token, as generation does,
 * in batches of many caches at once.
 */
import type { CacheOptions, KvCache } from '../src/cache/contract.ts'
import type { CausalLM } from '../src/runtime/contract.ts'
import { KvasirError } from '../src/tensor/error.ts'
import { type Deviation, DeviationSum } from './deviation.ts'
import type { Continuation, Passage } from './passages.ts'

export interface CompareOptions {
  readonly passages: readonly Passage[]
  /** What the logits are compared with. */
  readonly reference: Partial<CacheOptions>
  /** Caches to compare; those of one group hold memory at the same time and answer together. */
  readonly groups: readonly (readonly Partial<CacheOptions>[])[]
  readonly signal?: AbortSignal
  /** @param tokens of all texts that have been read so far, by all caches */
  readonly onProgress?: (tokens: number) => void
}

export interface Compared extends Deviation {
  /** Of the cache after its last text. */
  readonly kvBytes: number
}

export interface Comparison {
  /** Beside itself, so only the answers mean something. */
  readonly reference: Compared
  readonly groups: readonly (readonly Compared[])[]
}

/** Caches that answer in one batch. */
const batchSize = 32

/** What `onProgress` comes to. */
export function tokensToRead({ passages, groups }: Pick<CompareOptions, 'passages' | 'groups'>): number {
  const caches = 1 + groups.reduce((sum, group) => sum + group.length, 0)
  return caches * passages.reduce((sum, { context }) => sum + context.length, 0)
}

interface Track {
  readonly options: Partial<CacheOptions>
  readonly sum: DeviationSum
  kvBytes: number
}

/** @throws KvasirError `aborted` when the signal fires */
export async function compareCaches(model: CausalLM, options: CompareOptions): Promise<Comparison> {
  const open = (cache: Partial<CacheOptions>): Track => ({ options: cache, sum: new DeviationSum(), kvBytes: 0 })
  const reference = open(options.reference)
  const groups = options.groups.map((group) => group.map(open))
  const reader = new Reader(model, options)
  for (const passage of options.passages) {
    const expected: Float32Array[][] = passage.continuations.map(() => [])
    await reader.run(passage, [reference], (c, step, row) => {
      expected[c]![step] = row.slice()
      return row
    })
    for (const group of groups) await reader.run(passage, group, (c, step) => expected[c]![step] as Float32Array)
  }
  const result = ({ sum, kvBytes }: Track): Compared => ({ ...sum.result(), kvBytes })
  return { reference: result(reference), groups: groups.map((group) => group.map(result)) }
}

/** Gives the logits to compare `row` with: those after `step` tokens of the answer of continuation `c`. */
type Reference = (c: number, step: number, row: Float32Array) => Float32Array

interface Answering {
  readonly track: Track
  readonly c: number
  readonly continuation: Continuation
  readonly cache: KvCache
  isCorrect: boolean
}

class Reader {
  readonly #model: CausalLM
  readonly #options: CompareOptions
  #tokens = 0

  constructor(model: CausalLM, options: CompareOptions) {
    this.#model = model
    this.#options = options
  }

  /** Lets each of some caches read the passage, then answer. */
  async run({ context, continuations }: Passage, tracks: readonly Track[], reference: Reference): Promise<void> {
    const caches: KvCache[] = []
    try {
      for (const track of tracks) {
        const cache = this.#model.createCache(track.options)
        caches.push(cache)
        await this.#read(cache, context)
        track.kvBytes = cache.getCacheInfo().bytes
      }
      const all = tracks.flatMap((track, i) => continuations.map((_, c) => ({ track, c, from: caches[i] as KvCache })))
      for (let start = 0; start < all.length; start += batchSize) {
        const batch = all.slice(start, start + batchSize).map(({ track, c, from }): Answering => {
          return { track, c, continuation: continuations[c] as Continuation, cache: from.fork(), isCorrect: true }
        })
        await this.#answer(batch, reference).finally(() => {
          for (const { cache } of batch) cache.dispose()
        })
      }
    } finally {
      for (const cache of caches) cache.dispose()
    }
  }

  async #read(cache: KvCache, context: Int32Array): Promise<void> {
    const { signal, onProgress } = this.#options
    const onPrefill = (done: number): void => onProgress?.(this.#tokens + done)
    await this.#model.prefill(cache, context, { signal, onPrefill })
    this.#tokens += context.length
  }

  async #answer(batch: readonly Answering[], reference: Reference): Promise<void> {
    const longest = Math.max(...batch.map(({ continuation }) => continuation.answer.length))
    for (let step = 0; step < longest; step++) {
      if (this.#options.signal?.aborted) throw new KvasirError('aborted', 'eval', 'interrupted')
      const going = batch.filter(({ continuation }) => step < continuation.answer.length)
      const entries = going.map(({ cache, continuation: { prompt, answer } }) => {
        return { cache, tokens: step === 0 ? prompt : [answer[step - 1] as number] }
      })
      const { data } = await this.#model.forward(entries)
      const { vocabSize } = this.#model
      for (const [i, one] of going.entries()) {
        const row = (data as Float32Array).subarray(i * vocabSize, (i + 1) * vocabSize)
        const likeliest = one.track.sum.add(reference(one.c, step, row), row)
        if (likeliest !== one.continuation.answer[step]) one.isCorrect = false
      }
    }
    for (const { track, continuation, isCorrect } of batch) if (continuation.isQuestion) track.sum.addAnswer(isCorrect)
  }
}
