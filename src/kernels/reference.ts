/**
 * The specification of each op: f64 arithmetic, plain loops, no cleverness. Every other backend is tested against this.
 */
import { invalidArgument } from '../tensor/error.ts'
import { f16ToF32, f32ToF16 } from '../tensor/float16.ts'
import type {
  AttendArgs,
  Kernels,
  KeyValueSegment,
  RetainArgs,
  RotateArgs,
  SelectArgs,
  StorageArray,
  StoreArgs,
} from './contract.ts'
import { NEVER } from './contract.ts'
import { allocateHostMemory } from './host-memory.ts'

export function openReference(): Kernels {
  return {
    name: 'reference',
    description: 'reference (f64 TypeScript)',
    alloc: (byteLength) => allocateHostMemory(byteLength),
    attend,
    store,
    retain,
    select,
    rotate,
  }
}

/** Element `index` of storage, as a number. */
function readStored(array: StorageArray, index: number): number {
  const value = array[index] as number
  return array instanceof Uint16Array ? f16ToF32(value) : value
}

function attend(args: AttendArgs): void {
  const { query, output, lse, numTokens, numHeads, numKvHeads, headDim, valueDim, scale } = args
  for (let t = 0; t < numTokens; t++) {
    for (let h = 0; h < numHeads; h++) {
      const kvHead = Math.floor((h * numKvHeads) / numHeads)
      const at = t * numHeads + h
      const q = query.subarray(at * headDim, (at + 1) * headDim)
      const visible = visibleRows(args, kvHead, args.firstPosition + t)
      const logits = visible.map(({ segment, stored, bias }) => scale * dot(q, segment.keys, stored * headDim) + bias)
      const max = logits.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY)
      const isEmpty = max === Number.NEGATIVE_INFINITY
      const weights = logits.map((logit) => (isEmpty ? 0 : Math.exp(logit - max)))
      const sum = weights.reduce((a, b) => a + b, 0)
      for (let e = 0; e < valueDim; e++) {
        let total = 0
        visible.forEach(({ segment, stored }, j) => {
          // A weight of zero hides its row altogether: 0 * NaN must not reach the sum.
          if (weights[j]) total += (weights[j] as number) * readStored(segment.values, stored * valueDim + e)
        })
        output[at * valueDim + e] = isEmpty ? 0 : total / sum
      }
      if (lse) lse[at] = isEmpty ? max : max + Math.log(sum)
    }
  }
}

/** The rows of `kvHead` that a query at `position` sees: `stored` counts rows of K and V in memory order. */
function visibleRows(args: AttendArgs, kvHead: number, position: number) {
  const visible: { segment: KeyValueSegment; stored: number; bias: number }[] = []
  for (const segment of args.segments) {
    const base = kvHead * segment.capacity
    for (let j = 0; j < (segment.lengths[kvHead] as number); j++) {
      const row = segment.rows?.[base + j] ?? j
      const birth = segment.births?.[base + row] ?? -NEVER
      const death = segment.deaths?.[base + row] ?? NEVER
      const bias = segment.bias?.[base + row] ?? 0
      // A bias of -Infinity hides its row altogether, whatever K holds there.
      if (birth > position || position >= death || bias === Number.NEGATIVE_INFINITY) continue
      visible.push({ segment, stored: segment.isTokenMajor ? row * args.numKvHeads + kvHead : base + row, bias })
    }
  }
  return visible
}

function dot(query: Float32Array, keys: StorageArray, offset: number): number {
  let total = 0
  for (let d = 0; d < query.length; d++) total += (query[d] as number) * readStored(keys, offset + d)
  return total
}

function store(args: StoreArgs): void {
  const { source, target, numKvHeads, headDim, capacity, counts, tokens, slots, stride } = args
  for (let k = 0; k < numKvHeads; k++) {
    for (let n = 0; n < (counts[k] as number); n++) {
      const from = ((tokens[k * stride + n] as number) * numKvHeads + k) * headDim
      const to = (k * capacity + (slots[k * stride + n] as number)) * headDim
      for (let d = 0; d < headDim; d++) {
        const value = source[from + d] as number
        target[to + d] = target instanceof Uint16Array ? f32ToF16(value) : value
      }
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
  const stride = Math.min(numTokens, kept.window)
  const used = new Set(held.map(({ row }) => row))
  const free = Array.from({ length: kept.window }, (_, row) => row).filter((row) => !used.has(row))
  const fresh = held.filter(({ row }) => row === undefined)
  fresh.forEach(({ score, position }, n) => {
    const row = free[n] as number
    args.tokens[k * stride + n] = position - firstPosition
    args.slots[k * stride + n] = row
    kept.scores[base + row] = score
    kept.positions[base + row] = position
  })
  args.counts[k] = fresh.length
  kept.lengths[k] = held.length
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

function rotate({ vectors, cos, sin, numTokens, numHeads, headDim, rotaryPairs }: RotateArgs): void {
  for (let t = 0; t < numTokens; t++) {
    for (let h = 0; h < numHeads; h++) {
      const base = (t * numHeads + h) * headDim
      for (let i = 0; i < rotaryPairs; i++) {
        const a = vectors[base + i] as number
        const b = vectors[base + rotaryPairs + i] as number
        const c = cos[t * rotaryPairs + i] as number
        const s = sin[t * rotaryPairs + i] as number
        vectors[base + i] = a * c - b * s
        vectors[base + rotaryPairs + i] = b * c + a * s
      }
    }
  }
}
