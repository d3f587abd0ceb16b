/** Storing, rotating, choosing and keeping rows: every backend against the reference. */
import { describe, expect, test } from 'vitest'
import { createRandom, normal } from './cases.ts'
import type { KeptSet, RetainArgs } from './contract.ts'
import { NEVER } from './contract.ts'
import { openReference } from './reference.ts'
import { candidates, worst } from './testing/candidates.ts'

const reference = openReference()

describe.each(candidates)('$name', ({ open }) => {
  const kernels = open()

  test('stores rows, f16 rounded to nearest even', () => {
    const random = createRandom(7)
    for (const headDim of [1, 7, 8, 64, 100]) {
      const source = normal(random, 6 * 2 * headDim)
      const awkward = [
        65519.9,
        65520,
        1e9,
        -1e-8,
        5.9604645e-8,
        2.98e-8,
        6.1e-5,
        Infinity,
        -Infinity,
        0,
        -0,
        1.0009765625,
        1.00048828125,
      ]
      source.set(awkward.slice(0, headDim), 0)
      const row = { counts: Int32Array.of(2, 1), tokens: Int32Array.of(0, 5, 3, -1), slots: Int32Array.of(3, 0, 1, 99) }
      for (const Type of [Float32Array, Uint16Array]) {
        const make = () => ({
          ...{ source, numTokens: 6, numKvHeads: 2, headDim, capacity: 4, stride: 2 },
          ...row,
          target: new Type(2 * 4 * headDim).fill(7),
        })
        const [expected, actual] = [make(), make()]
        reference.store(expected)
        kernels.store(actual)
        expect(actual.target).toEqual(expected.target)
      }
    }
  })

  test('rotates heads, whole and in part', () => {
    const random = createRandom(3)
    for (const [headDim, rotaryPairs] of [
      [8, 4],
      [8, 2],
      [66, 33],
      [128, 64],
    ] as const) {
      const angles = Array.from({ length: 3 * rotaryPairs }, () => random() * 6)
      const make = () => ({
        ...{ vectors: normal(createRandom(5), 3 * 2 * headDim), numTokens: 3, numHeads: 2, headDim, rotaryPairs },
        cos: Float32Array.from(angles, Math.cos),
        sin: Float32Array.from(angles, Math.sin),
      })
      const [expected, actual] = [make(), make()]
      reference.rotate(expected)
      kernels.rotate(actual)
      expect(worst(actual.vectors, expected.vectors)).toBeLessThanOrEqual(1e-6)
    }
  })

  test('selects the best rows by (score, row), whatever the ties', () => {
    const random = createRandom(11)
    for (const numRows of [0, 1, 5, 64, 257]) {
      for (const window of [1, 3, 64, 1000]) {
        const scores = Float32Array.from({ length: 2 * 300 }, () => {
          const score = Math.floor(random() * 9) - 4
          return score === 4 ? Number.NEGATIVE_INFINITY : score * 0.5
        })
        const make = () => ({
          ...{ scores, numKvHeads: 2, capacity: 300, numRows, window },
          ...{ rows: new Int32Array(600), lengths: new Int32Array(2) },
        })
        const [expected, actual] = [make(), make()]
        reference.select(expected)
        kernels.select(actual)
        expect(actual.lengths).toEqual(expected.lengths)
        for (const k of [0, 1]) {
          const chosen = (args: typeof actual) => args.rows.slice(k * 300, k * 300 + (args.lengths[k] as number))
          expect(chosen(actual)).toEqual(chosen(expected))
        }
      }
    }
  })

  test('retains what the reference retains, chunk after chunk', () => {
    const random = createRandom(13)
    for (const [window, sinks, recent] of [
      [1, 0, 0],
      [5, 0, 0],
      [16, 2, 3],
      [8, 8, 0],
      [8, 0, 8],
      [7, 3, 4],
      [40, 0, 5],
    ] as const) {
      const ours = createKept(window, sinks, recent)
      const theirs = createKept(window, sinks, recent)
      let firstPosition = 0
      for (const numTokens of [1, 1, 3, 1, 17, 1, 1, 60, 1, 2, 1, 1, 1, 33]) {
        const scores = Float32Array.from({ length: numTokens * 2 }, () => {
          const score = Math.floor(random() * 12) - 6
          return score === 5 ? Number.NEGATIVE_INFINITY : score
        })
        const [expected, actual] = [theirs, ours].map((kept) => retainArgs(kept, scores, numTokens, firstPosition))
        reference.retain(expected as RetainArgs)
        kernels.retain(actual as RetainArgs)
        expect(actual?.tokenDeaths).toEqual(expected?.tokenDeaths)
        for (const head of [0, 1]) {
          expect(deathsByPosition(actual as RetainArgs, head)).toEqual(deathsByPosition(expected as RetainArgs, head))
          expect(keptPositions(ours, head)).toEqual(keptPositions(theirs, head))
          expect(keptScores(ours, head)).toEqual(keptScores(theirs, head))
        }
        firstPosition += numTokens
      }
    }
  })

  test('a kept set that makes no sense is refused', () => {
    for (const spoil of [
      (kept: KeptSet) => kept.accepted.fill(1e300),
      (kept: KeptSet) => kept.accepted.fill(Number.NaN),
      (kept: KeptSet) => kept.lengths.fill(99),
      (kept: KeptSet) => kept.lengths.fill(-1),
      (kept: KeptSet) => kept.heapLengths.fill(9),
    ]) {
      const kept = createKept(8, 1, 3)
      spoil(kept)
      expect(() => kernels.retain(retainArgs(kept, Float32Array.of(1, 2), 1, 0))).toThrow(/corrupt/)
    }
  })

  test('a NaN score is refused and changes nothing', () => {
    const kept = createKept(4, 0, 0)
    kernels.retain(retainArgs(kept, Float32Array.of(1, 2, 3, 4), 2, 0))
    const before = structuredClone(kept)
    expect(() => kernels.retain(retainArgs(kept, Float32Array.of(5, 6, 7, Number.NaN), 2, 2))).toThrow(/NaN/)
    expect(kept).toEqual(before)
  })
})

function createKept(window: number, sinks: number, recent: number): KeptSet {
  const numKvHeads = 2
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

function retainArgs(kept: KeptSet, scores: Float32Array, numTokens: number, firstPosition: number): RetainArgs {
  const stride = Math.min(numTokens, kept.window)
  return {
    ...{ kept, scores, numTokens, firstPosition },
    rowDeaths: numTokens > 1 ? new Int32Array(2 * kept.window) : undefined,
    tokenDeaths: new Int32Array(2 * numTokens),
    counts: new Int32Array(2),
    tokens: new Int32Array(2 * stride),
    slots: new Int32Array(2 * stride),
  }
}

function keptPositions({ positions, lengths, window }: KeptSet, head: number): number[] {
  return Array.from(positions.subarray(head * window, head * window + (lengths[head] as number))).sort((a, b) => a - b)
}

function keptScores(kept: KeptSet, head: number): number[] {
  const start = head * kept.window
  const rows = Array.from({ length: kept.lengths[head] as number }, (_, row) => start + row)
  return rows
    .sort((a, b) => (kept.positions[a] as number) - (kept.positions[b] as number))
    .map((at) => kept.scores[at] as number)
}

/** How many old rows die at each token: rows are a backend's own affair. */
function deathsByPosition({ rowDeaths, kept }: RetainArgs, head: number): number[] | undefined {
  return (
    rowDeaths &&
    Array.from(rowDeaths.subarray(head * kept.window, (head + 1) * kept.window))
      .filter((t) => t !== NEVER)
      .sort((a, b) => a - b)
  )
}
