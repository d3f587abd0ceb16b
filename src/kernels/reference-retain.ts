/** Which tokens stay. */
import { invalidArgument } from '../tensor/error.ts'
import { NEVER, type RetainArgs, type SelectArgs } from './contract.ts'

/** A token of the stream while `retain` decides; `row` is set for those that hold one. */
interface Candidate {
  readonly score: number
  readonly position: number
  readonly row?: number
}

export function retain(args: RetainArgs): void {
  const { kept, scores, numTokens, firstPosition } = args
  if (scores.subarray(0, numTokens * kept.numKvHeads).some(Number.isNaN)) {
    throw invalidArgument('kernels', 'expected scores without NaN')
  }
  for (let k = 0; k < kept.numKvHeads; k++) {
    const base = k * kept.window
    let held: Candidate[] = Array.from({ length: kept.lengths[k] as number }, (_, row) => ({
      score: kept.scores[base + row] as number,
      position: kept.positions[base + row] as number,
      row,
    })).sort((a, b) => a.position - b.position)
    args.rowDeaths?.fill(NEVER, base, base + kept.window)
    for (let t = 0; t < numTokens; t++) {
      const score = scores[t * kept.numKvHeads + k] as number
      const isMasked = score === Number.NEGATIVE_INFINITY
      args.tokenDeaths[k * numTokens + t] = isMasked ? t : NEVER
      if (isMasked) continue
      held.push({ score, position: firstPosition + t })
      kept.accepted[k] = (kept.accepted[k] as number) + 1
      const stay = keptOf(held, kept)
      for (const gone of held.filter((candidate) => !stay.includes(candidate))) {
        if (gone.row === undefined) args.tokenDeaths[k * numTokens + gone.position - firstPosition] = t
        else if (args.rowDeaths) args.rowDeaths[base + gone.row] = t
      }
      held = stay
    }
    writeKept(args, k, held)
  }
}

/** The law itself, on candidates in order of position: sinks, recent tokens and the best of the rest. */
function keptOf(held: readonly Candidate[], { window, sinks, recent }: RetainArgs['kept']): Candidate[] {
  const best = held
    .slice(sinks, Math.max(sinks, held.length - recent))
    .sort((a, b) => b.score - a.score || b.position - a.position)
    .slice(0, window - sinks - recent)
  return held.filter((candidate, n) => n < sinks || n >= held.length - recent || best.includes(candidate))
}

/** Survivors that held a row keep it; new ones take the lowest rows that are free. */
function writeKept(args: RetainArgs, k: number, held: readonly Candidate[]): void {
  const { kept, numTokens, firstPosition } = args
  const base = k * kept.window
  const before = kept.lengths[k] as number
  const stride = Math.min(numTokens, kept.window)
  const used = new Set(held.map(({ row }) => row))
  const free = Array.from({ length: kept.window }, (_, row) => row).filter((row) => !used.has(row))
  const fresh = held.filter(({ row }) => row === undefined)
  const rows = held.map((candidate) => candidate.row ?? (free[fresh.indexOf(candidate)] as number))
  fresh.forEach(({ score, position }, n) => {
    const row = free[n] as number
    const had = row < before
    if (args.leftPositions)
      args.leftPositions[k * stride + n] = had ? (kept.positions[base + row] as number) : Number.NaN
    if (args.leftScores) args.leftScores[k * stride + n] = had ? (kept.scores[base + row] as number) : Number.NaN
    args.tokens[k * stride + n] = position - firstPosition
    args.slots[k * stride + n] = row
    kept.scores[base + row] = score
    kept.positions[base + row] = position
  })
  args.counts[k] = fresh.length
  kept.lengths[k] = held.length
  writeOrder(kept, k, rows)
}

/**
 * What other backends find the next to leave by, so that a state goes on with any of them. Rows by position: the first
 * are sinks, the last lie in the ring, those between compete; in order of worth they are a heap.
 */
function writeOrder(kept: RetainArgs['kept'], k: number, rows: readonly number[]): void {
  const { window, sinks, recent, scores, positions } = kept
  const accepted = kept.accepted[k] as number
  const inRing = Math.max(0, Math.min(recent, accepted - sinks))
  const score = (row: number) => scores[k * window + row] as number
  const position = (row: number) => positions[k * window + row] as number
  const competing = rows.slice(sinks, Math.max(sinks, rows.length - inRing))
  competing.sort((a, b) => score(a) - score(b) || position(a) - position(b))
  kept.heap.set(competing, k * window)
  kept.heapLengths[k] = competing.length
  for (let n = 0; n < inRing; n++) {
    const number = accepted - inRing + n - sinks
    kept.ring[k * recent + (number % recent)] = rows[rows.length - inRing + n] as number
  }
}

export function select(args: SelectArgs): void {
  const { scores, numKvHeads, capacity, numRows, window, rows, lengths } = args
  for (let k = 0; k < numKvHeads; k++) {
    const base = k * capacity
    const chosen = Array.from({ length: numRows }, (_, row) => row)
      .filter((row) => scores[base + row] !== Number.NEGATIVE_INFINITY)
      .sort((a, b) => (scores[base + b] as number) - (scores[base + a] as number) || b - a)
      .slice(0, window)
      .sort((a, b) => a - b)
    rows.set(chosen, base)
    lengths[k] = chosen.length
  }
}
