/** Which evicted tokens come back for a query (docs/caches.md, "Tokens that come back"): pages by their bounds, in loops. */
import { dequantizeRow, quantizedRowBytes, quantizeRow } from '../../tensor/quantized-row.ts'
import { dot, type NaiveToken } from './naive-token.ts'

const pageTokens = 16

interface Archive {
  /** All tokens so far of a head, those that were passed over too. */
  readonly tokens: readonly NaiveToken[]
  readonly kept: ReadonlySet<NaiveToken>
  /** As attention reads it. */
  keyOf(token: NaiveToken): Float64Array
}

/** @param queries of the G query heads, rotated and scaled */
export function comingBack(
  { tokens, kept, keyOf }: Archive,
  queries: readonly Float64Array[],
  recall: number,
): NaiveToken[] {
  const isAway = (token: NaiveToken): boolean => !kept.has(token) && token.bias !== Number.NEGATIVE_INFINITY
  const numPages = Math.floor(tokens.length / pageTokens)
  const pages = Array.from({ length: numPages }, (_, n) => tokens.slice(n * pageTokens, (n + 1) * pageTokens))
  const best = pages
    .filter((page) => page.some(isAway))
    .map((page) => {
      const [greatest, least] = boundsOf(page.map(keyOf), (queries[0] as Float64Array).length)
      const bias = Math.max(...page.filter(isAway).map((token) => token.bias))
      return { page, bound: bias + Math.max(...queries.map((query) => mostOf(query, greatest, least))) }
    })
    .sort((a, b) => b.bound - a.bound)
    .slice(0, recall)
  // The tokens after the last full page are at hand.
  return [...best.flatMap(({ page }) => page), ...tokens.slice(numPages * pageTokens)].filter(isAway)
}

/** The most that a query could make of a key that lies, in each channel, between the least and greatest of some. */
function mostOf(query: Float64Array, greatest: Float64Array, least: Float64Array): number {
  const corner = query.map((q, d) => (q > 0 ? greatest : least)[d] as number)
  return dot(query, corner)
}

/** The greatest and least number of each channel, in 8 bits with one scale. */
function boundsOf(keys: readonly Float64Array[], headDim: number): [Float64Array, Float64Array] {
  const channels = Array.from({ length: headDim }, (_, d) => keys.map((key) => key[d] as number))
  const exact = [...channels.map((channel) => Math.max(...channel)), ...channels.map((channel) => Math.min(...channel))]
  const [row, bounds] = [new Uint8Array(quantizedRowBytes(2 * headDim, 'int8')), new Float64Array(2 * headDim)]
  quantizeRow(exact, 'int8', row, 0)
  dequantizeRow(row, 0, 'int8', bounds)
  return [bounds.subarray(0, headDim), bounds.subarray(headDim)]
}
