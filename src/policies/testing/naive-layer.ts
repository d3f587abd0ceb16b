/**
 * A layer's cache as anyone would write it: arrays of tokens, loops in f64, everything computed anew from nothing. It
 * says what attention gives, which tokens stay and what their scores are, from the definitions in docs/caches.md.
 */
import type { LayerInput } from '../../cache/contract.ts'
import { tokenOf } from '../../cache/layout.ts'
import { backFor, headOf, outputOf, weightsOf } from './naive-attention.ts'
import { type NaiveOptions, storedKey, storedValue } from './naive-rows.ts'
import { lookbackOf, type NaiveView, rescores, sampleOf, staticScore } from './naive-scores.ts'
import { dynamicBudgets, keepBest, keepTogether, staggered, sum } from './naive-selection.ts'
import { type NaiveToken, turn } from './naive-token.ts'

/** Longer chunks are read as though nothing came back. */
const recallingTokens = 32

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
    copy.#backs = this.#backs.map((query) => query.map((back, h) => back.map(copyOf(headOf(h, this.#options.shape)))))
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
        const bias = importance?.[t * K + k] ?? 0
        const token: NaiveToken = {
          ...{ position: this.seen, key: part(key, t * K + k, D), value: part(value, t * K + k, E) },
          ...{ mass: 0, bias, score: Number.NaN, number: this.#next, hasMoved: false, hasLeft: false },
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
    const lookback = lookbackOf(this.#options.rules)
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
    this.#backs[position] = queries.map((_, h) => {
      if (!recalls) return []
      const k = headOf(h, shape)
      const own = queries.filter((_, other) => headOf(other, shape) === k)
      return backFor(own, number, { all: this.#archive[k]!, kept: this.heads[k]! }, this.#options)
    })
    return queries.map((query, h) => {
      const tokens = this.#ofQueryHead(h)
      const back = this.#backs[position]![h] as readonly NaiveToken[]
      const look = { query, position, number, back }
      const weights = weightsOf(tokens, look, this.#options)
      if (rules.score === 'h2o') for (const [n, token] of tokens.entries()) token.mass += weights[n] as number
      return outputOf(tokens, look, weights, this.#options)
    })
  }

  #ofQueryHead(h: number): NaiveToken[] {
    return this.heads[headOf(h, this.#options.shape)] as NaiveToken[]
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
      const more = isByHead ? staggered(isOver, this.#options.layer, interval) : []
      this.heads = this.heads.map((tokens, k) => {
        return isOver[k] ? keepBest(tokens, budget + (more[k] ?? 0), rules) : tokens
      })
    }
    this.#renumber()
  }

  #keepDynamic(view: NaiveView, budget: number): void {
    const { rules } = this.#options
    const masses = view.recentMass(lookbackOf(rules))
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
      sample: (head) => sampleOf(this.#queries).map((queries) => queries[head] as Float64Array),
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
        const look = { query, position, number: this.#next - this.seen + position, back }
        const weights = weightsOf(tokens, look, this.#options)
        for (const n of tokens.keys()) own[n]! += weights[n] as number
      }
    }
    return masses
  }
}
