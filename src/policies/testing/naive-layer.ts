/**
 * A layer's cache as anyone would write it: arrays of tokens, loops in f64, everything computed anew from nothing. It is
 * told which tokens stayed and says what attention over them must give; whether the right ones stayed is checked apart.
 */
import type { LayerShape } from '../../cache/contract.ts'

export interface NaiveToken {
  readonly position: number
  readonly key: Float64Array
  readonly value: Float64Array
  readonly bias: number
}

/** Radians a position, `[R]`; pairs (i, i + R). */
export type Frequencies = readonly number[]

export interface NaiveOptions {
  readonly shape: LayerShape
  /** Absent: keys and queries come rotated, or never are. */
  readonly frequencies?: Frequencies
  readonly isRank: boolean
}

export class NaiveLayer {
  readonly #options: NaiveOptions
  /** Tokens of each head, by position. */
  heads: NaiveToken[][]
  seen = 0

  constructor(options: NaiveOptions, heads?: NaiveToken[][]) {
    this.#options = options
    this.heads = heads ?? Array.from({ length: options.shape.numKvHeads }, () => [])
  }

  fork(): NaiveLayer {
    const copy = new NaiveLayer(
      this.#options,
      this.heads.map((tokens) => [...tokens]),
    )
    copy.seen = this.seen
    return copy
  }

  add(head: number, token: NaiveToken): void {
    this.heads[head]!.push(token)
  }

  keep(head: number, positions: readonly number[]): void {
    const wanted = new Set(positions)
    this.heads[head] = this.heads[head]!.filter(({ position }) => wanted.has(position))
  }

  /** Attention of one query head over the tokens of its KV head up to a position. */
  attend(query: Float64Array, h: number, position: number): Float64Array {
    const { shape, frequencies, isRank } = this.#options
    const { numHeads, numKvHeads, headDim, valueDim, scale = 1 / Math.sqrt(headDim) } = shape
    const tokens = this.heads[Math.floor((h * numKvHeads) / numHeads)]!.filter((token) => token.position <= position)
    const output = new Float64Array(valueDim)
    const logits = tokens.map((token, n) => {
      const distance = isRank ? tokens.length - 1 - n : position - token.position
      const key = frequencies ? turn(token.key, frequencies, -distance) : token.key
      return scale * key.reduce((sum, value, d) => sum + value * (query[d] as number), 0) + token.bias
    })
    const most = Math.max(...logits)
    if (most === Number.NEGATIVE_INFINITY) return output
    const weights = logits.map((logit) => Math.exp(logit - most))
    const total = weights.reduce((a, b) => a + b, 0)
    for (const [n, token] of tokens.entries()) {
      for (let e = 0; e < valueDim; e++) {
        output[e] = (output[e] as number) + ((weights[n] as number) / total) * (token.value[e] as number)
      }
    }
    return output
  }
}

function turn(vector: Float64Array, frequencies: Frequencies, position: number): Float64Array {
  const turned = vector.slice()
  for (const [i, frequency] of frequencies.entries()) {
    const [c, s] = [Math.cos(position * frequency), Math.sin(position * frequency)]
    const [a, b] = [vector[i] as number, vector[i + frequencies.length] as number]
    turned[i] = a * c - b * s
    turned[i + frequencies.length] = b * c + a * s
  }
  return turned
}
