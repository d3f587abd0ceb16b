/**
 * Which rows stay: the one place that knows budgets, sinks, recent tokens and ties. Order is total: a higher score
 * wins, of two equal ones the newer token, of two of one age the lower head; a score of -Infinity never stays.
 */
import { invalidArgument } from '../../tensor/error.ts'
import { moveLowest } from './lowest.ts'

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

/**
 * @returns for each head, 1 where a row stays
 * @throws KvasirError `invalid-argument` for a score that is NaN
 */
export function selectRows(heads: readonly Ranked[], rules: SelectionRules): Uint8Array[] {
  if (rules.safeguard !== undefined) return selectTogether(heads, rules, rules.safeguard)
  return heads.map((ranked, head) => {
    const { all, middle } = divide(ranked, rules)
    const kept = flagsOf(ranked, all)
    const excess = all.length - Math.max(rules.budgets?.[head] ?? rules.budget, all.length - middle.length)
    for (const row of lowest(middle, ranked, excess)) kept[row] = 0
    return kept
  })
}

/** Rows that can stay at all, and those of them that nothing protects. */
function divide({ scores }: Ranked, { sinks, recent }: SelectionRules): { all: Int32Array; middle: Int32Array } {
  const all = new Int32Array(scores.length)
  let count = 0
  for (let row = 0; row < scores.length; row++) {
    const score = scores[row] as number
    if (Number.isNaN(score)) throw invalidArgument('cache', 'expected scores without NaN')
    if (score !== Number.NEGATIVE_INFINITY) all[count++] = row
  }
  return { all: all.subarray(0, count), middle: all.slice(sinks, Math.max(sinks, count - recent)) }
}

function flagsOf({ scores }: Ranked, rows: Int32Array): Uint8Array {
  const flags = new Uint8Array(scores.length)
  for (let n = 0; n < rows.length; n++) flags[rows[n] as number] = 1
  return flags
}

/** The `count` rows that lose against all others, in no order; `rows` are reordered. */
function lowest(rows: Int32Array, { scores, positions }: Ranked, count: number): Int32Array {
  if (count <= 0) return rows.subarray(0, 0)
  moveLowest(rows, count, scores, positions)
  return rows.subarray(0, count)
}

/** AdaKV: each head has the best of its own up to the safeguard; the rest of all budgets goes to the best of all. */
function selectTogether(heads: readonly Ranked[], rules: SelectionRules, safeguard: number): Uint8Array[] {
  let free = 0
  const poor: Int32Array[] = []
  const kept = heads.map((ranked) => {
    const { all, middle } = divide(ranked, rules)
    const flags = flagsOf(ranked, all)
    const own = Math.max(0, Math.min(Math.floor(safeguard * rules.budget), rules.budget - all.length + middle.length))
    const left = lowest(middle, ranked, middle.length - own)
    for (const row of left) flags[row] = 0
    poor.push(left)
    free += rules.budget - (all.length - left.length)
    return flags
  })
  const { scores, ranks, owners, rows } = joined(heads, poor)
  const all = Int32Array.from(rows, (_, n) => n)
  const out = Math.max(0, all.length - Math.max(0, free))
  if (out > 0) moveLowest(all, out, scores, ranks)
  for (const n of all.subarray(out)) kept[owners[n] as number]![rows[n] as number] = 1
  return kept
}

/** Rows of several heads in one list; of equal scores and one age the lower head has the higher rank. */
function joined(heads: readonly Ranked[], chosen: readonly Int32Array[]) {
  const count = chosen.reduce((sum, rows) => sum + rows.length, 0)
  const [scores, ranks] = [new Float64Array(count), new Float64Array(count)]
  const [owners, all] = [new Int32Array(count), new Int32Array(count)]
  let n = 0
  for (const [head, rows] of chosen.entries()) {
    const own = heads[head] as Ranked
    for (const row of rows) {
      scores[n] = own.scores[row] as number
      ranks[n] = (own.positions[row] as number) * heads.length + (heads.length - 1 - head)
      owners[n] = head
      all[n++] = row
    }
  }
  return { scores, ranks, owners, rows: all }
}

/** Orders rows of a head from the first to leave to the last. */
function byWorth({ scores, positions }: Ranked): (a: number, b: number) => number {
  return (a, b) => {
    const difference = (scores[a] as number) - (scores[b] as number)
    return difference || (positions[a] as number) - (positions[b] as number)
  }
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
