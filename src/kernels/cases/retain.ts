/** Cases of `retain`: a stream offered chunk by chunk, with ties, masked tokens, sinks and recent tokens. */
import type { KeptSet, RetainArgs } from '../contract.ts'
import { type OpCase, reference } from './case.ts'
import { createRandom, pickFrom } from './random.ts'

export interface RetainShape {
  readonly name: string
  readonly numKvHeads: number
  readonly window: number
  readonly sinks: number
  readonly recent: number
  /** Tokens of each call, one after the other. */
  readonly chunks: readonly number[]
}

/** A stream: `calls` share one kept set. */
export interface RetainStream {
  readonly calls: readonly RetainArgs[]
}

const axes = {
  numKvHeads: [1, 2, 7],
  window: [1, 5, 16, 40, 129],
  sinks: [0, 0.25, 1],
  recent: [0, 0.25, 1],
  chunk: [0, 1, 1, 1, 2, 3, 17, 60, 300],
  numChunks: [1, 4, 9],
} as const

const chunks = [1, 1, 3, 1, 17, 1, 1, 60, 1, 2, 1, 1, 1, 33]

export const retainCase: OpCase<RetainShape, RetainStream> = {
  axes,
  shapes: [
    ...[1, 5, 64].map((window) => ({ window, sinks: 0, recent: 0 })),
    ...[
      { window: 16, sinks: 2, recent: 3 },
      { window: 8, sinks: 8, recent: 0 },
    ],
    ...[
      { window: 8, sinks: 0, recent: 8 },
      { window: 7, sinks: 3, recent: 4 },
      { window: 40, sinks: 0, recent: 5 },
    ],
  ].map((size) => ({ ...size, name: `${size.window}, ${size.sinks}, ${size.recent}`, numKvHeads: 2, chunks })),
  draw(random) {
    const [numKvHeads, window] = [pickFrom(random, axes.numKvHeads), pickFrom(random, axes.window)]
    const sinks = Math.floor(window * pickFrom(random, axes.sinks))
    const recent = Math.floor((window - sinks) * pickFrom(random, axes.recent))
    const length = pickFrom(random, axes.numChunks)
    const drawn = Array.from({ length }, () => pickFrom(random, axes.chunk))
    return { name: 'drawn', numKvHeads, window, sinks, recent, chunks: drawn }
  },
  create({ numKvHeads, window, sinks, recent, chunks }, seed) {
    const random = createRandom(seed)
    const kept = createKept(numKvHeads, window, sinks, recent)
    let firstPosition = 0
    const calls = chunks.map((numTokens) => {
      const scores = Float32Array.from({ length: numTokens * numKvHeads }, () => {
        const score = Math.floor(random() * 12) - 6
        return score === 5 ? Number.NEGATIVE_INFINITY : score
      })
      firstPosition += numTokens
      return retainArgs(kept, scores, numTokens, firstPosition - numTokens)
    })
    return { calls }
  },
  run(kernels, { calls }) {
    const seen = {
      deaths: [] as number[],
      tokenDeaths: [] as number[],
      positions: [] as number[],
      scores: [] as number[],
      left: [] as number[],
    }
    for (const args of calls) {
      const before = args.kept.positions.slice()
      const lengths = args.kept.lengths.slice()
      kernels.retain(args)
      seen.tokenDeaths.push(...args.tokenDeaths)
      for (let k = 0; k < args.kept.numKvHeads; k++) {
        seen.deaths.push(...deathsByPosition(args, before, lengths, k))
        seen.left.push(...leftByPosition(args, k))
        for (const { position, score } of rowsByPosition(args.kept, k)) {
          seen.positions.push(position)
          seen.scores.push(score)
        }
      }
    }
    return seen
  },
  reference: (args) => retainCase.run(reference, args),
  // Which row a token takes is the backend's choice; what stays, and until when, is not.
  tolerance: () => ({ deaths: 0, tokenDeaths: 0, positions: 0, scores: 0, left: 0 }),
  flops: () => 0,
  bytes: ({ numKvHeads, chunks }) => 8 * numKvHeads * chunks.reduce((a, b) => a + b, 0),
}

export function createKept(numKvHeads: number, window: number, sinks: number, recent: number): KeptSet {
  return {
    ...{ numKvHeads, window, sinks, recent },
    scores: new Float32Array(numKvHeads * window),
    positions: new Float64Array(numKvHeads * window),
    lengths: new Int32Array(numKvHeads),
    heap: new Int32Array(numKvHeads * window),
    heapLengths: new Int32Array(numKvHeads),
    accepted: new Float64Array(numKvHeads),
    ring: new Int32Array(numKvHeads * recent),
  }
}

export function retainArgs(kept: KeptSet, scores: Float32Array, numTokens: number, firstPosition: number): RetainArgs {
  const { numKvHeads: K, window } = kept
  const stride = Math.min(numTokens, window)
  return {
    ...{ kept, scores, numTokens, firstPosition },
    rowDeaths: numTokens > 1 ? new Int32Array(K * window) : undefined,
    tokenDeaths: new Int32Array(K * numTokens),
    counts: new Int32Array(K),
    tokens: new Int32Array(K * stride),
    slots: new Int32Array(K * stride),
    leftPositions: new Float64Array(K * stride),
    leftScores: new Float32Array(K * stride),
  }
}

/** Position and score of each token whose row was given away, in order of position. */
function leftByPosition({ kept, numTokens, counts, leftPositions, leftScores }: RetainArgs, head: number): number[] {
  const first = head * Math.min(numTokens, kept.window)
  return Array.from({ length: counts[head] as number }, (_, n) => [leftPositions?.[first + n], leftScores?.[first + n]])
    .filter((left): left is [number, number] => !Number.isNaN(left[0]))
    .sort(([one], [other]) => one - other)
    .flat()
}

function rowsByPosition({ positions, scores, lengths, window }: KeptSet, head: number) {
  const rows = Array.from({ length: lengths[head] as number }, (_, row) => head * window + row)
  return rows
    .map((at) => ({ position: positions[at] as number, score: scores[at] as number }))
    .sort((a, b) => a.position - b.position)
}

/** Deaths of the rows that were there before, by the position that each held: rows are the backend's choice. */
function deathsByPosition({ kept, rowDeaths }: RetainArgs, before: Float64Array, lengths: Int32Array, head: number) {
  if (!rowDeaths) return []
  const start = head * kept.window
  return Array.from({ length: lengths[head] as number }, (_, row) => start + row)
    .sort((a, b) => (before[a] as number) - (before[b] as number))
    .map((at) => rowDeaths[at] as number)
}
