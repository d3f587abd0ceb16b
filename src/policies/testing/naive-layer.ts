/**
 * A layer's cache as anyone would write it: arrays of tokens, loops in f64, everything computed anew from nothing. It
 * says what attention gives, which tokens stay and what their scores are, from the definitions in docs/caches.md.
 */
import type { LayerInput } from '../../cache/contract.ts'
import { tokenOf } from '../../cache/layout.ts'
import { comingBack } from './naive-recall.ts'
import { archivedKey, archivedValue, type NaiveOptions, storedKey, storedValue } from './naive-rows.ts'
import { type NaiveView, rescores, staticScore } from './naive-scores.ts'
import { dynamicBudgets, keepBest, keepTogether, sum } from './naive-selection.ts'
import { dot, type NaiveToken, turn } from './naive-token.ts'

/** Longer chunks are read as though nothing came back. */
const recallingTokens = 32

/** A query head's look at the tokens of its KV head. */
interface Look {
  readonly query: Float64Array
  readonly h: number
  /** Of the query. */
  readonly position: number
  /** Where the query stands on the axis of rotations. */
  readonly number: number
  /** What it sees besides what its head holds. */
  readonly back?: readonly NaiveToken[]
}

export class NaiveLayer {
  readonly #options: NaiveOptions
  /** Tokens that each head holds, by position. */
  heads: NaiveToken[][]
  seen = 0
  /** `[T, H, D]` of all tokens. */
  #queries: Float64Array[][] = []
  /** All that came to each head. */
  #history: NaiveToken[][]
  /** The same, and what was passed over. */
  #archive: NaiveToken[][]
  /** `[T][H]`: what each query saw besides what its head held. */
  #backs: (readonly NaiveToken[])[][] = []
  #limits: number[]
  #next = 0

  constructor(options: NaiveOptions) {
    const { shape, rules } = options
    this.#options = options
    this.heads = Array.from({ length: shape.numKvHeads }, () => [])
    this.#history = this.heads.map(() => [])
    this.#archive = this.heads.map(() => [])
    this.#limits = this.heads.map(() => rules.leastWindow ?? rules.window)
  }

  fork(): NaiveLayer {
    const copy = new NaiveLayer(this.#options)
    copy.#archive = this.#archive.map((tokens) => tokens.map((token) => ({ ...token })))
    const copyOf = (k: number) => (token: NaiveToken) => copy.#archive[k]![token.position] as NaiveToken
    copy.#history = this.#history.map((tokens, k) => tokens.map(copyOf(k)))
    copy.heads = this.heads.map((tokens, k) => tokens.map(copyOf(k)))
    copy.#backs = this.#backs.map((query) => query.map((back, h) => back.map(copyOf(this.#headOf(h)))))
    copy.seen = this.seen
    copy.#queries = [...this.#queries]
    copy.#limits = [...this.#limits]
    copy.#next = this.#next
    return copy
  }

  truncate(length: number): void {
    for (const lists of [this.heads, this.#history, this.#archive]) {
      for (const [k, tokens] of lists.entries()) lists[k] = tokens.filter(({ position }) => position < length)
    }
    this.seen = length
    this.#queries.length = length
    this.#backs.length = length
    this.#next = length
  }

  reset(): void {
    this.truncate(0)
    this.#limits = this.#limits.map(() => this.#options.rules.leastWindow ?? this.#options.rules.window)
  }

  /** Returns the output, `[T, H, E]`. */
  attend(input: LayerInput): Float64Array {
    const { rules, isRank, recall } = this.#options
    const { numTokens } = input
    const recalls = recall !== undefined && numTokens <= recallingTokens
    // A query for which tokens may come back is asked by itself.
    if (recalls && numTokens > 1) return this.#attendSteps(input)
    // Static scores: a chunk is its tokens, one at a time. So is one in which some head passes a token over, by rank.
    const isSingle = rules.interval === 0 || (isRank && (input.importance as Float32Array).includes(-Infinity))
    const size = isSingle ? 1 : numTokens
    const outputs: Float64Array[] = []
    for (let t = 0; t < numTokens; t += size) {
      this.#add(input, t, size)
      if (size === 1) this.#leave()
      if (rules.interval === 0) this.#keepStatic()
      else this.#renumber()
      for (let n = this.seen - size; n < this.seen; n++) outputs.push(...this.#attendAs(n, recalls))
    }
    if (rules.interval > 0) this.#compress()
    this.#leave()
    return Float64Array.from(outputs.flatMap((output) => [...output]))
  }

  #attendSteps(input: LayerInput): Float64Array {
    const outputs = Array.from({ length: input.numTokens }, (_, t) =>
      this.attend(tokenOf(this.#options.shape, input, t)),
    )
    return Float64Array.from(outputs.flatMap((output) => [...output]))
  }

  #add({ query, key, value, importance }: LayerInput, first: number, count: number): void {
    const { numHeads: H, numKvHeads: K, headDim: D, valueDim: E } = this.#options.shape
    const part = (array: Float32Array, at: number, dim: number) => {
      return Float64Array.from(array.subarray(at * dim, (at + 1) * dim))
    }
    for (let t = first; t < first + count; t++) {
      this.#queries.push(Array.from({ length: H }, (_, h) => part(query, t * H + h, D)))
      for (let k = 0; k < K; k++) {
        const token: NaiveToken = {
          ...{ position: this.seen, key: part(key, t * K + k, D), value: part(value, t * K + k, E), mass: 0 },
          ...{
            bias: importance?.[t * K + k] ?? 0,
            score: Number.NaN,
            number: this.#next,
            hasMoved: false,
            hasLeft: false,
          },
        }
        this.#archive[k]!.push(token)
        if (this.#options.rules.passesOver && token.bias === Number.NEGATIVE_INFINITY) continue
        if (!(this.#options.rules.score in rescores)) {
          const sizes = { layer: this.#options.layer, numKvHeads: K, seed: this.#options.seed }
          token.score = staticScore(this.#options.rules.score, token, k, sizes)
        }
        this.#history[k]!.push(token)
        this.heads[k]!.push(token)
      }
      this.seen++
      this.#next++
    }
  }

  /** Of all tokens so far, whatever was kept before: what has left could not come back anyway. */
  #keepStatic(): void {
    const { rules } = this.#options
    this.heads = this.#history.map((tokens) => (rules.masks ? [...tokens] : keepBest(tokens, rules.window, rules)))
    this.#renumber()
  }

  /** By rank, the newest token stands before the next number and every older one a number lower. */
  #renumber(): void {
    if (!this.#options.isRank) return
    const { window } = this.#options.rules
    const lookback = this.#lookback
    if (this.#next > window + Math.max(window, lookback)) {
      this.#next = Math.max(lookback, ...this.heads.map(({ length }) => length))
    }
    for (const tokens of this.heads) {
      for (const [n, token] of tokens.entries()) {
        const number = this.#next - (tokens.length - n)
        if (number !== token.number) token.hasMoved = true
        token.number = number
      }
    }
  }

  /** With room for the last R tokens, one that is so far back is overwritten. */
  #leave(): void {
    for (const tokens of this.#history) {
      for (const token of tokens) token.hasLeft ||= token.position + this.#options.residual < this.seen
    }
  }

  /** All heads of the query at a position, over what they hold. */
  #attendAs(position: number, recalls: boolean): Float64Array[] {
    const { shape, rules } = this.#options
    const queries = this.#queries[position] as Float64Array[]
    const number = this.#next - this.seen + position
    this.#backs[position] = queries.map((_, h) => (recalls ? this.#comingBack(this.#headOf(h), queries, number) : []))
    return queries.map((query, h) => {
      const tokens = this.#ofQueryHead(h)
      const back = this.#backs[position]![h] as readonly NaiveToken[]
      const weights = this.#weights(tokens, { query, h, position, number, back })
      const output = new Float64Array(shape.valueDim)
      for (const [n, token] of [...tokens, ...back].entries()) {
        token.mass += rules.score === 'h2o' && n < tokens.length ? (weights[n] as number) : 0
        const value =
          n < tokens.length ? storedValue(token, position, this.#options) : archivedValue(token, this.#options)
        for (let e = 0; e < output.length; e++) output[e]! += (weights[n] as number) * (value[e] as number)
      }
      return output
    })
  }

  #headOf(h: number): number {
    const { numHeads, numKvHeads } = this.#options.shape
    return Math.floor((h * numKvHeads) / numHeads)
  }

  #ofQueryHead(h: number): NaiveToken[] {
    return this.heads[this.#headOf(h)] as NaiveToken[]
  }

  /** For the queries of one token, of a KV head. */
  #comingBack(k: number, queries: readonly Float64Array[], number: number): NaiveToken[] {
    const { shape, frequencies, recall = 0 } = this.#options
    const { scale = 1 / Math.sqrt(shape.headDim) } = shape
    const own = queries.filter((_, h) => this.#headOf(h) === k)
    const turned = own.map((query) => (frequencies ? turn(query, frequencies, number) : query).map((q) => scale * q))
    const archive = {
      tokens: this.#archive[k]!,
      kept: new Set(this.heads[k]),
      keyOf: (t: NaiveToken) => archivedKey(t, this.#options),
    }
    return comingBack(archive, turned, recall)
  }

  /** Of each token of a head, then of those that came back; 0 where it is not seen. */
  #weights(tokens: readonly NaiveToken[], { query, position, number, back = [] }: Look): number[] {
    const { shape, frequencies, rules } = this.#options
    const turned = frequencies ? turn(query, frequencies, number) : query
    const { scale = 1 / Math.sqrt(shape.headDim) } = shape
    const isOpen = tokens.map((token) => token.position <= position)
    const open = new Set(tokens.filter((_, n) => isOpen[n]))
    const visible = rules.masks ? new Set(keepBest(hideless(open), rules.window, rules)) : open
    const logits = tokens.map((token) => {
      return visible.has(token)
        ? scale * dot(storedKey(token, position, this.#options), turned) + token.bias
        : Number.NEGATIVE_INFINITY
    })
    for (const token of back) logits.push(scale * dot(archivedKey(token, this.#options), turned) + token.bias)
    const most = Math.max(...logits)
    if (most === Number.NEGATIVE_INFINITY) return logits.map(() => 0)
    const powers = logits.map((logit) => Math.exp(logit - most))
    const total = powers.reduce((a, b) => a + b, 0)
    return powers.map((power) => power / total)
  }

  #compress(): void {
    const { rules } = this.#options
    const { window, interval, sinks, recent, isShared, leastWindow } = rules
    const total = this.heads.reduce((all, { length }) => all + length, 0)
    const isOver = this.heads.map(({ length }, k) => length > (this.#limits[k] as number))
    if (isShared ? total <= this.heads.length * window : !isOver.includes(true)) return
    const view = this.#view()
    const scores = rescores[rules.score]?.(view)
    const isByHead = rules.isByHead && !isShared && leastWindow === undefined
    for (const [k, tokens] of this.heads.entries()) {
      if (isByHead && !isOver[k]) continue
      for (const [n, token] of tokens.entries()) if (scores) token.score = scores[k]![n] as number
    }
    const budget = Math.max(window - interval + 1, sinks + recent, 1)
    if (isShared) this.heads = keepTogether(this.heads, budget, rules)
    else if (leastWindow !== undefined) this.#keepDynamic(view, budget)
    else {
      // Of heads that are due together, each keeps more than the one before, and other layers keep others.
      const due = isOver.flatMap((isOne, k) => (isOne ? [k] : []))
      const shift = due.length > 1 ? (this.#options.layer * ((Math.sqrt(5) - 1) / 2)) % 1 : 0
      const more = (k: number) => Math.floor(((due.indexOf(k) + shift) * interval) / due.length)
      this.heads = this.heads.map((tokens, k) => {
        return isOver[k] ? keepBest(tokens, budget + (isByHead ? more(k) : 0), rules) : tokens
      })
    }
    this.#renumber()
  }

  /** How many of the last queries a ranking looks back at: these have positions, however few rows are kept. */
  get #lookback(): number {
    const { score, recent, leastWindow } = this.#options.rules
    if (score === 'snapkv') return Math.max(1, recent)
    return score === 'tova' || leastWindow === undefined ? 1 : 16
  }

  #keepDynamic(view: NaiveView, budget: number): void {
    const { rules } = this.#options
    const masses = view.recentMass(this.#lookback)
    const budgets = dynamicBudgets(this.heads, masses, budget, rules)
    this.#limits = budgets.map((own) => Math.min(rules.window, own + rules.interval - 1))
    this.heads = this.heads.map((tokens, k) => keepBest(tokens, budgets[k] as number, rules))
  }

  #view(): NaiveView {
    const { shape, rules, frequencies } = this.#options
    return {
      ...{ heads: this.heads, numHeads: shape.numHeads, seen: this.seen, rules },
      keys: (head) => this.heads[head]!.map((token) => storedKey(token, this.seen - 1, this.#options)),
      values: (head) => this.heads[head]!.map((token) => storedValue(token, this.seen - 1, this.#options)),
      recentMass: (count) => this.#recentMass(count),
      sample: (head) => this.#sample().map((queries) => queries[head] as Float64Array),
      ahead: (query) => {
        const turned = Array.from({ length: frequencies ? 512 : 1 }, (_, n) => {
          return turn(query, frequencies ?? [], this.#next + n)
        })
        return query.map((_, d) => sum(turned.map((one) => one[d] as number)) / turned.length)
      },
    }
  }

  #recentMass(count: number): number[][] {
    const masses = this.heads.map((tokens) => tokens.map(() => 0))
    for (let position = Math.max(0, this.seen - count); position < this.seen; position++) {
      for (const [h, query] of (this.#queries[position] as Float64Array[]).entries()) {
        const tokens = this.#ofQueryHead(h)
        const own = masses[this.heads.indexOf(tokens)] as number[]
        // Only the query that has just been is weighed with what came back for it: others attend once more without.
        const back = count === 1 ? this.#backs[position]![h] : []
        const look = { query, h, position, number: this.#next - this.seen + position, back }
        const weights = this.#weights(tokens, look)
        for (const n of tokens.keys()) own[n]! += weights[n] as number
      }
    }
    return masses
  }

  /** Every n-th query but for the first four, n the least power of two that makes 64 or less of them. */
  #sample(): Float64Array[][] {
    const open = this.#queries.slice(4)
    let stride = 1
    while (Math.ceil(open.length / stride) > 64) stride *= 2
    return open.filter((_, n) => n % stride === 0)
  }
}

/** Without what importance hides: it takes no place among the best. */
function hideless(tokens: Iterable<NaiveToken>): NaiveToken[] {
  return [...tokens].filter(({ bias }) => bias !== Number.NEGATIVE_INFINITY)
}
