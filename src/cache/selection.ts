/**
 * Which rows stay: the one place that knows budgets, sinks, recent tokens and ties. Order is total: a higher score
 * wins, of two equal ones the newer token, of two of one age the lower head; a score of -Infinity never stays.
 */
import { invalidArgument } from '../tensor/error.ts'

export interface SelectionRules {
  /** Rows of one head. With `safeguard` that is the mean: heads share what they have together. */
  readonly budget: number
  readonly sinks: number
  readonly recent: number
  /** AdaKV: the share of its budget that each head has for its own best; the rest goes to the best of all heads. */
  readonly safeguard?: number
  /** Dynamic windows: budgets of each head, from `massBudgets`. */
  readonly budgets?: ArrayLike<number>
}

/** One head's rows by position. */
export interface Ranked {
  readonly positions: Float64Array
  readonly scores: Float64Array
}

/** Evicting this few rows, looking for the lowest again and again is faster than sorting. */
const fewRows = 4

/**
 * @returns for each head, 1 where a row stays
 * @throws KvasirError `invalid-argument` for a score that is NaN
 */
export function selectRows(heads: readonly Ranked[], rules: SelectionRules): Uint8Array[] {
  if (rules.safeguard !== undefined) return selectTogether(heads, rules, rules.safeguard)
  return heads.map((ranked, head) => {
    const { all, middle } = divide(ranked, rules)
    const kept = new Uint8Array(ranked.scores.length).fill(all.length === ranked.scores.length ? 1 : 0)
    if (all.length < kept.length) for (const row of all) kept[row] = 1
    const excess = all.length - Math.max(rules.budgets?.[head] ?? rules.budget, all.length - middle.length)
    for (const row of lowest(middle, ranked, excess)) kept[row] = 0
    return kept
  })
}

/** Rows that can stay at all, and those of them that nothing protects. */
function divide({ scores }: Ranked, { sinks, recent }: SelectionRules): { all: number[]; middle: number[] } {
  const all: number[] = []
  for (let row = 0; row < scores.length; row++) {
    const score = scores[row] as number
    if (Number.isNaN(score)) throw invalidArgument('cache', 'expected scores without NaN')
    if (score !== Number.NEGATIVE_INFINITY) all.push(row)
  }
  return { all, middle: all.slice(sinks, Math.max(sinks, all.length - recent)) }
}

/** The `count` rows that lose against all others. */
function lowest(rows: readonly number[], ranked: Ranked, count: number): number[] {
  if (count <= 0) return []
  const isLess = byWorth(ranked)
  if (count > fewRows) return [...rows].sort(isLess).slice(0, count)
  const found: number[] = []
  while (found.length < Math.min(count, rows.length)) {
    let worst = -1
    for (let n = 0; n < rows.length; n++) {
      const row = rows[n] as number
      if (!found.includes(row) && (worst < 0 || isLess(row, worst) < 0)) worst = row
    }
    found.push(worst)
  }
  return found
}

/** Orders rows of a head from the first to leave to the last. */
function byWorth({ scores, positions }: Ranked): (a: number, b: number) => number {
  return (a, b) => {
    const difference = (scores[a] as number) - (scores[b] as number)
    return difference || (positions[a] as number) - (positions[b] as number)
  }
}

/** AdaKV: each head has the best of its own up to the safeguard; the rest of all budgets goes to the best of all. */
function selectTogether(heads: readonly Ranked[], rules: SelectionRules, safeguard: number): Uint8Array[] {
  let free = 0
  const left: { head: number; row: number }[] = []
  const kept = heads.map((ranked, head) => {
    const { all, middle } = divide(ranked, rules)
    const flags = new Uint8Array(ranked.scores.length)
    const own = Math.max(0, Math.min(Math.floor(safeguard * rules.budget), rules.budget - all.length + middle.length))
    const poor = lowest(middle, ranked, middle.length - own)
    for (const row of all) flags[row] = 1
    for (const row of poor) {
      flags[row] = 0
      left.push({ head, row })
    }
    free += rules.budget - (all.length - poor.length)
    return flags
  })
  const worth = heads.map(byWorth)
  left.sort((a, b) => {
    if (a.head === b.head) return worth[a.head]!(b.row, a.row)
    const [first, second] = [heads[a.head] as Ranked, heads[b.head] as Ranked]
    const difference = (second.scores[b.row] as number) - (first.scores[a.row] as number)
    return difference || (second.positions[b.row] as number) - (first.positions[a.row] as number) || a.head - b.head
  })
  for (const { head, row } of left.slice(0, Math.max(0, free))) kept[head]![row] = 1
  return kept
}

export interface DynamicWindow {
  /** Rows that a head keeps at least. */
  readonly least: number
  /** Share of recent attention that must stay. */
  readonly keepMass: number
}

/**
 * Dynamic windows: the fewest rows, best first, that got `keepMass` of each head's recent attention, from `least` to
 * `most`; where all heads together want more than `total`, what they want beyond `least` shrinks in proportion.
 * @param masses for each head, by position as `heads`
 */
export function massBudgets(
  heads: readonly Ranked[],
  masses: readonly Float32Array[],
  { least, keepMass }: DynamicWindow,
  rules: SelectionRules,
  most: number,
): number[] {
  const wanted = heads.map((ranked, head) => {
    const mass = masses[head] as Float32Array
    const { all, middle } = divide(ranked, rules)
    const allowed = (1 - keepMass) * mass.reduce((a, b) => a + b, 0)
    let count = all.length
    let lost = 0
    for (const row of middle.sort(byWorth(ranked))) {
      lost += mass[row] as number
      if (lost > allowed || count <= least) break
      count--
    }
    return Math.min(most, Math.max(least, count))
  })
  const total = heads.length * rules.budget
  const sum = wanted.reduce((a, b) => a + b, 0)
  if (sum <= total) return wanted
  const floor = heads.length * least
  const share = Math.max(0, (total - floor) / (sum - floor))
  return wanted.map((count) => least + Math.floor((count - least) * share))
}
