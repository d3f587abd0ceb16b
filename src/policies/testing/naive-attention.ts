/** Attention of one query head over the tokens of its KV head, in loops: weights, output, and what comes back for it. */
import type { LayerShape } from '../../cache/contract.ts'
import { comingBack } from './naive-recall.ts'
import { archivedKey, archivedValue, type NaiveOptions, storedKey, storedValue } from './naive-rows.ts'
import { keepBest } from './naive-selection.ts'
import { dot, type NaiveToken, turn } from './naive-token.ts'

/** A query head's look at the tokens of its KV head. */
interface Look {
  readonly query: Float64Array
  /** Of the query. */
  readonly position: number
  /** Where the query stands on the axis of rotations. */
  readonly number: number
  /** What it sees besides what its head holds. */
  readonly back?: readonly NaiveToken[] | undefined
}

/** The KV head of a query head. */
export function headOf(h: number, { numHeads, numKvHeads }: LayerShape): number {
  return Math.floor((h * numKvHeads) / numHeads)
}

/** Of each token of a head, then of those that came back; 0 where it is not seen. */
export function weightsOf(
  tokens: readonly NaiveToken[],
  { query, position, number, back = [] }: Look,
  options: NaiveOptions,
): number[] {
  const { rules } = options
  const turned = scaledQuery(query, number, options)
  const open = new Set(tokens.filter((token) => token.position <= position))
  const visible = rules.masks ? new Set(keepBest(hideless(open), rules.window, rules)) : open
  const logits = tokens.map((token) => {
    return visible.has(token) ? dot(storedKey(token, position, options), turned) + token.bias : Number.NEGATIVE_INFINITY
  })
  for (const token of back) logits.push(dot(archivedKey(token, options), turned) + token.bias)
  const most = Math.max(...logits)
  if (most === Number.NEGATIVE_INFINITY) return logits.map(() => 0)
  const powers = logits.map((logit) => Math.exp(logit - most))
  const total = powers.reduce((a, b) => a + b, 0)
  return powers.map((power) => power / total)
}

/** `[E]`: the values of the tokens and of those that came back, by their weights. */
export function outputOf(
  tokens: readonly NaiveToken[],
  { position, back = [] }: Look,
  weights: readonly number[],
  options: NaiveOptions,
): Float64Array {
  const values = [
    ...tokens.map((token) => storedValue(token, position, options)),
    ...back.map((token) => archivedValue(token, options)),
  ]
  const output = new Float64Array(options.shape.valueDim)
  for (const [n, value] of values.entries()) {
    for (let e = 0; e < output.length; e++) output[e]! += (weights[n] as number) * (value[e] as number)
  }
  return output
}

/** What comes back for the queries of one token, of a KV head that has seen `all` and holds `kept`. */
export function backFor(
  queries: readonly Float64Array[],
  number: number,
  { all, kept }: { readonly all: readonly NaiveToken[]; readonly kept: readonly NaiveToken[] },
  options: NaiveOptions,
): NaiveToken[] {
  const archive = { tokens: all, kept: new Set(kept), keyOf: (token: NaiveToken) => archivedKey(token, options) }
  const turned = queries.map((query) => scaledQuery(query, number, options))
  return comingBack(archive, turned, options.recall ?? 0)
}

function scaledQuery(query: Float64Array, number: number, { shape, frequencies }: NaiveOptions): Float64Array {
  const { scale = 1 / Math.sqrt(shape.headDim) } = shape
  return (frequencies ? turn(query, frequencies, number) : query).map((q) => scale * q)
}

/** Without what importance hides: it takes no place among the best. */
function hideless(tokens: Iterable<NaiveToken>): NaiveToken[] {
  return [...tokens].filter(({ bias }) => bias !== Number.NEGATIVE_INFINITY)
}
