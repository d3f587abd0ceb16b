/** Which evicted tokens come back for a query (docs/caches.md, "Tokens that come back"): pages by their bounds, in loops. */
import { f16ToF32, f32ToF16 } from '../../tensor/float16.ts'
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
      const keys = page.map(keyOf)
      const bias = Math.max(...page.filter(isAway).map((token) => token.bias))
      return { page, bound: bias + Math.max(...queries.map((query) => mostOf(query, keys))) }
    })
    .sort((a, b) => b.bound - a.bound)
    .slice(0, recall)
  // The tokens after the last full page are at hand.
  return [...best.flatMap(({ page }) => page), ...tokens.slice(numPages * pageTokens)].filter(isAway)
}

/** The most that a query could make of a key that lies, in each channel, between the least and greatest of some. */
function mostOf(query: Float64Array, keys: readonly Float64Array[]): number {
  const half = (value: number): number => f16ToF32(f32ToF16(value))
  const corner = query.map((q, d) => {
    const channel = keys.map((key) => key[d] as number)
    return half(q > 0 ? Math.max(...channel) : Math.min(...channel))
  })
  return dot(query, corner)
}
