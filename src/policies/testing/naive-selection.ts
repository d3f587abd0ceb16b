/** Who stays, from scores: sorting of whole lists. */
import type { NaiveRules } from './naive-rules.ts'
import type { NaiveToken } from './naive-token.ts'

/** The best first: a higher score, then the newer. */
function best(tokens: readonly NaiveToken[]): NaiveToken[] {
  return tokens.toSorted((a, b) => b.score - a.score || b.position - a.position)
}

function byPosition(tokens: Iterable<NaiveToken>): NaiveToken[] {
  return [...tokens].sort((a, b) => a.position - b.position)
}

/** Tokens by position, apart: the first and last that stay in any case, and the rest. */
function split(tokens: readonly NaiveToken[], { sinks, recent }: NaiveRules) {
  const protectedRows = tokens.filter((_, n) => n < sinks || n >= tokens.length - recent)
  return { protectedRows, rest: tokens.filter((token) => !protectedRows.includes(token)) }
}

/** The `budget` that stay of one head. */
export function keepBest(tokens: readonly NaiveToken[], budget: number, rules: NaiveRules): NaiveToken[] {
  if (tokens.length <= budget) return [...tokens]
  const { protectedRows, rest } = split(tokens, rules)
  return byPosition([...protectedRows, ...best(rest).slice(0, Math.max(0, budget - protectedRows.length))])
}

/** AdaKV: each head has a fifth of the mean budget for its own best; what is left goes to the best of all heads. */
export function keepTogether(heads: readonly NaiveToken[][], budget: number, rules: NaiveRules): NaiveToken[][] {
  const kept = heads.map((tokens) => {
    const { protectedRows, rest } = split(tokens, rules)
    const own = Math.max(0, Math.min(Math.floor(budget / 5), budget - protectedRows.length))
    return new Set([...protectedRows, ...best(rest).slice(0, own)])
  })
  const others = heads.flatMap((tokens, head) => {
    return tokens.filter((token) => !kept[head]!.has(token)).map((token) => ({ head, token }))
  })
  others.sort((a, b) => {
    return b.token.score - a.token.score || b.token.position - a.token.position || a.head - b.head
  })
  const free = heads.length * budget - kept.reduce((sum, { size }) => sum + size, 0)
  for (const { head, token } of others.slice(0, Math.max(0, free))) kept[head]!.add(token)
  return kept.map(byPosition)
}

/** Dynamic windows: rows that each head needs so that `keepMass` of its recent attention stays. */
export function dynamicBudgets(
  heads: readonly NaiveToken[][],
  masses: readonly number[][],
  budget: number,
  rules: NaiveRules,
): number[] {
  const { leastWindow = 1, keepMass } = rules
  const least = Math.min(leastWindow, rules.window)
  const wanted = heads.map((tokens, k) => {
    const massOf = new Map(tokens.map((token, n) => [token, masses[k]![n] as number]))
    const total = sum(massOf.values())
    const worstFirst = best(split(tokens, rules).rest).reverse()
    let count = tokens.length
    let left = total
    for (const token of worstFirst) {
      left -= massOf.get(token) as number
      if (left < keepMass * total || count <= least) break
      count--
    }
    return Math.min(budget, Math.max(least, count))
  })
  const excess = sum(wanted) - heads.length * budget
  if (excess <= 0) return wanted
  const beyond = sum(wanted) - heads.length * least
  const share = Math.max(0, (heads.length * budget - heads.length * least) / beyond)
  return wanted.map((count) => least + Math.floor((count - least) * share))
}

export function sum(values: Iterable<number>): number {
  let total = 0
  for (const value of values) total += value
  return total
}

/** Rows besides the budget: of heads that are due together each keeps more than the one before, in other layers others. */
export function staggered(isDue: readonly boolean[], layer: number, interval: number): number[] {
  const due = isDue.flatMap((isOne, k) => (isOne ? [k] : []))
  const shift = due.length > 1 ? (layer * ((Math.sqrt(5) - 1) / 2)) % 1 : 0
  return isDue.map((_, k) => Math.floor(((due.indexOf(k) + shift) * interval) / due.length))
}
