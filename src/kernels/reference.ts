/**
 * The specification of each op: f64 arithmetic, plain loops, no cleverness. Every other backend is tested against this.
 */
import { invalidArgument } from '../tensor/error.ts'
import { hadamard } from '../tensor/hadamard.ts'
import type {
  AttendArgs,
  KeepArgs,
  Kernels,
  KeyValueSegment,
  RetainArgs,
  RotateArgs,
  Rotation,
  SelectArgs,
  StoreArgs,
  WeighArgs,
} from './contract.ts'
import { NEVER } from './contract.ts'
import { allocateHostMemory } from './host-memory.ts'
import { readRow, storageCodecs, storageOf, storagesOf, writeRow } from './storage.ts'

export function openReference(): Kernels {
  return {
    name: 'reference',
    description: 'reference (f64 TypeScript)',
    alloc: (byteLength) => allocateHostMemory(byteLength),
    attend: (args) => attend(args),
    attendAsync: async (args) => attend(args),
    weigh,
    store,
    retain,
    keep,
    select,
    rotate,
  }
}

type Round = (value: number) => number
const exact: Round = (value) => value

/**
 * Attention by the definition. With `round` = Math.fround it is what anyone would write in f32: the measure of the error
 * that a backend may make.
 */
export function attend(args: AttendArgs, round: Round = exact): void {
  const { output, lse, numTokens, numHeads, valueDim } = args
  // A Float32Array takes the result unrounded, whatever the queries are.
  const { write } = storageCodecs[output instanceof Float32Array ? 'f32' : storageOf(output, args.queryStorage)]
  for (let t = 0; t < numTokens; t++) {
    for (let h = 0; h < numHeads; h++) {
      const at = t * numHeads + h
      const visible = visibleRows(args, h, t, round)
      const sink = args.sinkLogits?.[h] ?? Number.NEGATIVE_INFINITY
      const max = visible.reduce((most, { logit }) => Math.max(most, logit), sink)
      const isEmpty = max === Number.NEGATIVE_INFINITY
      const weights = visible.map(({ logit }) => (isEmpty ? 0 : round(Math.exp(round(logit - max)))))
      const sum = weights.reduce((a, b) => round(a + b), isEmpty ? 0 : round(Math.exp(round(sink - max))))
      const totals = new Float64Array(valueDim)
      visible.forEach(({ readValue }, j) => {
        // A weight of zero hides its row altogether: 0 * NaN must not reach the sum.
        const weight = weights[j] as number
        if (weight === 0) return
        const value = readValue()
        for (let e = 0; e < valueDim; e++) {
          totals[e] = round((totals[e] as number) + round(weight * round(value[e] as number)))
        }
      })
      const result = totals.map((total) => (isEmpty ? 0 : total / sum))
      if (args.hadamard) hadamard(result, round)
      for (let e = 0; e < valueDim; e++) output[at * valueDim + e] = write(result[e] as number)
      if (lse) lse[at] = isEmpty ? max : max + Math.log(sum)
      if (args.logits) keepLogits(args, at, visible)
    }
  }
}

function keepLogits(args: AttendArgs, at: number, visible: readonly VisibleRow[]): void {
  const { logits, segments, numHeads, numKvHeads } = args
  const { capacity, lengths } = segments[0] as KeyValueSegment
  const own = (logits as Float32Array).subarray(at * capacity, (at + 1) * capacity)
  own.fill(Number.NEGATIVE_INFINITY, 0, lengths[Math.floor(((at % numHeads) * numKvHeads) / numHeads)])
  for (const { entry, logit } of visible) own[entry] = logit
}

interface VisibleRow {
  /** Which segment, which of the head's entries, and the index at which its arrays speak of the row. */
  readonly segment: number
  readonly entry: number
  readonly index: number
  readonly logit: number
  readonly readValue: () => Float64Array
}

/** The rows that query head h of token t sees. */
function visibleRows(args: AttendArgs, h: number, t: number, round: Round): VisibleRow[] {
  const { headDim, valueDim, numHeads, numKvHeads, firstPosition, softcap, scale } = args
  const k = Math.floor((h * numKvHeads) / numHeads)
  const query = readQuery(args, h, t, round)
  const visible: VisibleRow[] = []
  for (const [s, segment] of args.segments.entries()) {
    const { keyStorage, valueStorage } = storagesOf(segment)
    for (let j = 0; j < (segment.lengths[k] as number); j++) {
      const { row, index } = locate(segment, k, j)
      const added = addedLogit(args, segment, { h, t, j, index })
      if (added === Number.NEGATIVE_INFINITY || !isVisible(args, segment, index, firstPosition + t)) continue
      const stored = storedRow(segment, k, row, numKvHeads)
      const key = readRow(segment.keys, keyStorage, stored, headDim)
      let dot = 0
      for (let d = 0; d < headDim; d++) {
        dot = round(dot + round((query[d] as number) * round(key[d] as number)))
      }
      const score = round(dot * round(scale))
      const logit = softcap ? round(softcap * round(Math.tanh(round(score / softcap)))) : score
      visible.push({
        ...{ segment: s, entry: j, index, logit: round(logit + added) },
        readValue: () => readRow(segment.values, valueStorage, stored, valueDim),
      })
    }
  }
  return visible
}

function weigh(args: WeighArgs): void {
  const { numTokens, numHeads, firstToken = 0, lse, masses } = args
  for (let t = firstToken; t < numTokens; t++) {
    for (let h = 0; h < numHeads; h++) {
      const sum = lse?.[t * numHeads + h] as number
      for (const { segment, index, logit } of visibleRows(args, h, t, exact)) {
        const mass = masses[segment] as Float32Array
        if (sum !== Number.NEGATIVE_INFINITY) mass[index] = (mass[index] as number) + Math.exp(logit - sum)
      }
    }
  }
}

function readQuery(args: AttendArgs, h: number, t: number, round: Round): number[] {
  const { headDim, numHeads, rotation } = args
  const { read } = storageCodecs[storageOf(args.query, args.queryStorage)]
  const at = (t * numHeads + h) * headDim
  const query = Array.from(args.query.subarray(at, at + headDim), read)
  if (rotation) rotateHead(query, 0, rotation, t, 1)
  if (args.hadamard) hadamard(query, round)
  return query
}

/** The storage row of entry j, and where bias, births, deaths and positions speak of it. */
function locate(segment: KeyValueSegment, k: number, j: number): { row: number; index: number } {
  const { capacity, rows, pages, pageSize = 1, pagesStride = 0 } = segment
  if (rows) {
    const row = rows[k * capacity + j] as number
    return { row, index: k * capacity + row }
  }
  const page = pages?.[k * pagesStride + Math.floor(j / pageSize)]
  return { row: page === undefined ? j : page * pageSize + (j % pageSize), index: k * capacity + j }
}

/** The number of a storage row of a KV head, in the order of memory. */
function storedRow({ layout, capacity }: KeyValueSegment, k: number, row: number, K: number): number {
  if (layout === 'shared') return row
  if (layout === 'token-major') return row * K + k
  return k * capacity + row
}

function isVisible(args: AttendArgs, segment: KeyValueSegment, index: number, position: number): boolean {
  if ((segment.births?.[index] ?? -NEVER) > position || position >= (segment.deaths?.[index] ?? NEVER)) return false
  const at = positionOf(segment, index)
  if (at === undefined) return true
  const { left, right, sinks = 0 } = args
  if (right !== undefined && at > position + right) return false
  return left === undefined || at >= position - left || at < sinks
}

function positionOf({ firstPosition, positions, capacity }: KeyValueSegment, index: number): number | undefined {
  if (positions) return positions[index]
  return firstPosition === undefined ? undefined : firstPosition + (index % capacity)
}

/** Bias, ALiBi and mask; -Infinity hides the row, whatever K holds there. */
function addedLogit(
  { alibiSlopes, firstPosition }: AttendArgs,
  segment: KeyValueSegment,
  { h, t, j, index }: { h: number; t: number; j: number; index: number },
): number {
  const { bias, mask } = segment
  let added = bias?.[index] ?? 0
  const distance = Math.abs(firstPosition + t - (positionOf(segment, index) ?? 0))
  if (alibiSlopes) added -= (alibiSlopes[h] as number) * distance
  if (!mask) return added
  const value = mask.values[h * mask.headStride + t * mask.tokenStride + j] as number
  if (mask.values instanceof Uint8Array) return value ? added : Number.NEGATIVE_INFINITY
  return value === Number.NEGATIVE_INFINITY ? value : added + value
}

function store(args: StoreArgs): void {
  const {
    source,
    target,
    numKvHeads: K,
    headDim,
    layout = 'head-major',
    capacity,
    counts,
    tokens,
    slots,
    stride,
  } = args
  const storage = storageOf(target, args.storage)
  for (let k = 0; k < K; k++) {
    for (let n = 0; n < (counts[k] as number); n++) {
      const token = tokens[k * stride + n] as number
      const from = (token * K + k) * headDim
      const slot = slots[k * stride + n] as number
      const row = layout === 'shared' ? slot : layout === 'token-major' ? slot * K + k : k * capacity + slot
      const values = Array.from(source.subarray(from, from + headDim))
      if (args.rotation) rotateHead(values, 0, args.rotation, token, 1)
      if (args.hadamard) hadamard(values)
      writeRow(target, storage, row, values)
    }
  }
}

/** A token of the stream while `retain` decides; `row` is set for those that hold one. */
interface Candidate {
  readonly score: number
  readonly position: number
  readonly row?: number
}

function retain(args: RetainArgs): void {
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

function keep(args: KeepArgs): void {
  const { kept, numTokens, counts, tokens, slots, targets } = args
  retain(args)
  const list = {
    numTokens,
    numKvHeads: kept.numKvHeads,
    counts,
    tokens,
    slots,
    stride: Math.min(numTokens, kept.window),
  }
  for (const target of targets) store({ ...target, ...list })
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
  const stride = Math.min(numTokens, kept.window)
  const used = new Set(held.map(({ row }) => row))
  const free = Array.from({ length: kept.window }, (_, row) => row).filter((row) => !used.has(row))
  const fresh = held.filter(({ row }) => row === undefined)
  const rows = held.map((candidate) => candidate.row ?? (free[fresh.indexOf(candidate)] as number))
  fresh.forEach(({ score, position }, n) => {
    const row = free[n] as number
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

function select(args: SelectArgs): void {
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

function rotate(args: RotateArgs): void {
  const { vectors, numTokens, numHeads, headDim } = args
  for (let t = 0; t < numTokens; t++) {
    for (let h = 0; h < numHeads; h++) {
      rotateHead(vectors, (t * numHeads + h) * headDim, args, t, args.isInverse ? -1 : 1)
    }
  }
}

/** Turns the head that begins at `base` by the angles of token t; sign -1 turns back. */
function rotateHead(x: Float32Array | number[], base: number, rotation: Rotation, t: number, sign: 1 | -1): void {
  const { cos, sin, rotaryPairs: pairs, isInterleaved } = rotation
  for (let i = 0; i < pairs; i++) {
    const [first, second] = isInterleaved ? [base + 2 * i, base + 2 * i + 1] : [base + i, base + pairs + i]
    const [a, b] = [x[first] as number, x[second] as number]
    const [c, s] = [cos[t * pairs + i] as number, sign * (sin[t * pairs + i] as number)]
    x[first] = a * c - b * s
    x[second] = b * c + a * s
  }
}
