/**
 * What becomes of a model on texts much longer than those that it was trained on, by what its cache keeps and where kept
 * keys stand.
 *
 * One text is read to marks at multiples of the trained length. The last tokens before each are predicted one after the
 * other, and then the model writes as many by itself. Both are set beside the same model that reads only the last part
 * of the text, no longer than it knows from training, with all of the cache: what it makes of the same tokens, and of
 * what was written.
 */
import type { CacheOptions, KvCache, PolicyChoice } from '../src/cache/contract.ts'
import { readPolicy } from '../src/policies/index.ts'
import type { CausalLM } from '../src/runtime/contract.ts'
import { checkChoice, checkInteger } from '../src/tensor/check.ts'
import { invalidArgument, KvasirError } from '../src/tensor/error.ts'
import { surprise } from './deviation.ts'

export interface LengthOptions {
  readonly tokens: Int32Array
  /** Tokens of the longest texts that the model knows. */
  readonly trained: number
  /** Multiples of it at which to look. */
  readonly times: readonly number[]
  /** Policies, and after a colon where kept keys stand: `streaming:rank`. */
  readonly caches: readonly string[]
  /** W of those that are bounded. */
  readonly window: number
  /** Tokens that are predicted, and written, at each mark. */
  readonly predict: number
  readonly seed: number
  readonly signal?: AbortSignal
  readonly onProgress?: (tokens: number, total: number) => void
}

/** Means over `predict` tokens, in nats; not finite where a logit was not. */
export interface LengthRow {
  readonly cache: string
  /** Tokens read. */
  readonly tokens: number
  /** Of the text, -log of the probability of the next token. */
  readonly loss: number
  /** The same of a cache that has read only the last `trained` of them. */
  readonly freshLoss: number
  /** What that one finds of the tokens that this one writes, drawn as they are likely ... */
  readonly writtenLoss: number
  /** ... and of those that it writes itself. */
  readonly freshWrittenLoss: number
  readonly kvBytes: number
}

export interface LengthResult {
  readonly trained: number
  readonly window: number
  readonly predict: number
  readonly rows: readonly LengthRow[]
  readonly seconds: number
}

/** Logits that are there at once are those of so many tokens. */
const piece = 64

/** @throws KvasirError `invalid-argument` for an unknown cache, or a text that is too short; `aborted` */
export async function evalLength(model: CausalLM, options: LengthOptions): Promise<LengthResult> {
  const { tokens, trained, times, caches, window, predict, onProgress } = options
  for (const [name, value] of Object.entries({ trained, window, predict })) checkInteger('eval', name, value, 1)
  if (trained < 2 * predict) throw invalidArgument('eval', `expected predict up to half of trained, got ${predict}`)
  const chosen = caches.map((name) => ({ name, ...cacheOptions(name, window) }))
  const marks = [...new Set(times)].sort((a, b) => a - b).map((multiple) => multiple * trained)
  const furthest = marks.at(-1) ?? 0
  if (tokens.length < furthest) {
    throw invalidArgument('eval', `expected a text of at least ${furthest} tokens, got ${tokens.length}`)
  }
  const started = performance.now()
  const judged = marks.length * (chosen.length + 1) * (trained - predict)
  const total = chosen.length * (furthest - marks.length * predict) + marks.length * (trained - predict) + judged
  const reader = new Reader(model, options, (read) => onProgress?.(Math.min(read, total), total))
  const fresh: Fresh[] = []
  for (const mark of marks) fresh.push(await reader.fresh(mark))
  const rows: LengthRow[] = []
  for (const { name, ...cache } of chosen) {
    for (const row of await reader.read(cache, marks, fresh)) rows.push({ cache: name, ...row })
  }
  return { trained, window, predict, rows, seconds: (performance.now() - started) / 1000 }
}

/** `full`, `streaming`, `streaming:rank`. */
function cacheOptions(name: string, window: number): Partial<CacheOptions> {
  const [policy, positions, ...more] = name.split(':')
  if (more.length > 0) throw invalidArgument('eval', `expected a policy, or policy:positions, got "${name}"`)
  const isFull = readPolicy(policy).name === 'full'
  if (positions !== undefined) checkChoice('eval', 'positions', positions, ['original', 'rank'])
  return {
    ...{ policy: policy as PolicyChoice, window: isFull ? undefined : window },
    ...(positions !== undefined && { positions: positions as NonNullable<CacheOptions['positions']> }),
  }
}

const everything = { policy: 'full', window: undefined } as const satisfies Partial<CacheOptions>

/** Nothing that makes a text look better than the model is. */
const asLikely = { temperature: 1, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 }

interface Followed {
  readonly loss: number
  readonly written: readonly number[]
  readonly kvBytes: number
}

type Measured = Omit<LengthRow, 'cache'>
type Fresh = Pick<Measured, 'freshLoss' | 'freshWrittenLoss'>

class Reader {
  readonly #model: CausalLM
  readonly #options: LengthOptions
  readonly #onRead: (tokens: number) => void
  #tokens = 0

  constructor(model: CausalLM, options: LengthOptions, onRead: (tokens: number) => void) {
    this.#model = model
    this.#options = options
    this.#onRead = onRead
  }

  /** The last part of the text alone. */
  async fresh(mark: number): Promise<Fresh> {
    const { trained } = this.#options
    const [found] = await this.#follow(everything, [mark], mark - trained)
    const { loss, written } = found as Followed
    return { freshLoss: loss, freshWrittenLoss: await this.#judge(mark, written) }
  }

  async read(cache: Partial<CacheOptions>, marks: readonly number[], fresh: readonly Fresh[]): Promise<Measured[]> {
    const rows: Measured[] = []
    for (const [i, { loss, written, kvBytes }] of (await this.#follow(cache, marks)).entries()) {
      const tokens = marks[i] as number
      rows.push({ tokens, loss, writtenLoss: await this.#judge(tokens, written), ...(fresh[i] as Fresh), kvBytes })
    }
    return rows
  }

  /** Reads the text from `first` on and looks at each of some marks. */
  async #follow(options: Partial<CacheOptions>, marks: readonly number[], first = 0): Promise<Followed[]> {
    const { tokens, predict } = this.#options
    const cache = this.#model.createCache(options)
    try {
      const found: Followed[] = []
      for (const mark of marks) {
        const start = mark - 1 - predict
        await this.#prefill(cache, tokens.subarray(first + cache.seenTokens, start))
        const loss = await this.#lossOf(cache, tokens.subarray(start, mark))
        found.push({ loss, written: await this.#write(cache, mark), kvBytes: cache.getCacheInfo().bytes })
      }
      return found
    } finally {
      cache.dispose()
    }
  }

  /** Goes on by itself after a mark, from a fork of what has read up to the last token before. */
  async #write(cache: KvCache, mark: number): Promise<readonly number[]> {
    const { tokens, predict, seed, signal } = this.#options
    const fork = cache.fork()
    try {
      const given = { ...{ cache: fork, maxNewTokens: predict, ignoreEos: true, seed, signal }, ...asLikely }
      return (await this.#model.generate([tokens[mark - 1] as number], given)).tokens
    } finally {
      fork.dispose()
    }
  }

  /** The loss of tokens that were written after a mark, by a cache that has read no more before than it knows. */
  async #judge(mark: number, written: readonly number[]): Promise<number> {
    const { tokens, trained, predict } = this.#options
    const cache = this.#model.createCache(everything)
    try {
      await this.#prefill(cache, tokens.subarray(mark - trained + predict, mark - 1))
      return await this.#lossOf(cache, Int32Array.of(tokens[mark - 1] as number, ...written))
    } finally {
      cache.dispose()
    }
  }

  async #prefill(cache: KvCache, tokens: Int32Array): Promise<void> {
    const onPrefill = (done: number): void => this.#onRead(this.#tokens + done)
    await this.#model.prefill(cache, tokens, { signal: this.#options.signal, onPrefill })
    this.#tokens += tokens.length
  }

  /** Mean of -log p over all tokens but the first, which is fed alone. */
  async #lossOf(cache: KvCache, tokens: Int32Array): Promise<number> {
    const { vocabSize } = this.#model
    let sum = 0
    for (let start = 0; start < tokens.length - 1; start += piece) {
      if (this.#options.signal?.aborted) throw new KvasirError('aborted', 'eval', 'interrupted')
      const part = tokens.slice(start, Math.min(start + piece, tokens.length - 1))
      const { data } = await this.#model.forward([{ cache, tokens: part, logitsOf: Array.from(part, (_, i) => i) }])
      for (let i = 0; i < part.length; i++) {
        const row = (data as Float32Array).subarray(i * vocabSize, (i + 1) * vocabSize)
        sum += surprise(row, tokens[start + i + 1] as number)
      }
    }
    return sum / (tokens.length - 1)
  }
}
