/** Attention by its definition. */
import { hadamard } from '../tensor/hadamard.ts'
import { type AttendArgs, type KeyValueSegment, NEVER, type WeighArgs } from './contract.ts'
import { rotateHead } from './reference-rows.ts'
import { readRow, storageCodecs, storageOf, storagesOf } from './storage.ts'

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

export function weigh(args: WeighArgs): void {
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
