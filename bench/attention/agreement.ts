/** Nothing is timed before its result is right: each is compared with the first, and ours with the f64 reference. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import type { FloatArray, FloatType, StorageArray, StorageType } from '../../src/kernels/index.ts'
import { attend } from '../../src/kernels/reference-attend.ts'
import { rowLength } from '../../src/kernels/storage.ts'
import { KvasirError } from '../../src/tensor/error.ts'
import { isQuantized } from '../../src/tensor/quantized-row.ts'
import { describeCase, numQueries } from './cases.ts'
import type { AttentionCase } from './contract.ts'
import { createInput, createRows } from './inputs.ts'

/**
 * Inputs are exact in every type, so what is allowed is the rounding of arithmetic and results: f32; a result in f16
 * (2^-11 of numbers up to 1) and sums in it; weights and results in bf16 (2^-8). All read the same quantized rows.
 */
const tolerances = { f32: 1e-4, f16: 2e-3, bf16: 1e-2 } as const satisfies Record<FloatType, number>

/** The coarsest of the types that a result went through. */
export function toleranceOf(...dtypes: readonly StorageType[]): number {
  return Math.max(...dtypes.map((dtype) => tolerances[isQuantized(dtype) ? 'f32' : dtype]))
}

/** The largest difference of two results; NaN and a result that is too short count as infinite. */
export function largestDifference(found: Float32Array, expected: Float32Array): number {
  if (found.length !== expected.length) return Number.POSITIVE_INFINITY
  let worst = 0
  for (let i = 0; i < found.length; i++) {
    const difference = Math.abs((found[i] as number) - (expected[i] as number))
    if (!(difference <= worst)) worst = Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference
  }
  return worst
}

/**
 * Compares with the result that the first contestant left in `file`, or leaves it there.
 * @returns the largest difference
 * @throws KvasirError `internal` where that is more than `tolerance`
 */
export function checkAgreement(
  who: string,
  result: Float32Array,
  { attentionCase, file, tolerance }: { attentionCase: AttentionCase; file: string; tolerance: number },
): number {
  if (!existsSync(file)) {
    writeFileSync(file, result)
    return 0
  }
  const bytes = readFileSync(file)
  const expected = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4)
  const difference = largestDifference(result, expected)
  if (!(difference <= tolerance)) throw disagreement(who, 'the others', difference, tolerance, attentionCase)
  return difference
}

/**
 * Compares the result of the first, the middle and the last token, each for one head, with the f64 reference.
 * @throws KvasirError `internal`
 */
export function checkReference(who: string, result: Float32Array, attentionCase: AttentionCase): void {
  const { heads, kvHeads, headDim, kvDtype, queryDtype, length } = attentionCase
  const T = numQueries(attentionCase)
  const rows = kvHeads * length
  const inputs = {
    query: createInput(T * heads * headDim, queryDtype, 'query'),
    key: createRows(rows, headDim, kvDtype, 'key'),
    value: createRows(rows, headDim, kvDtype, 'value'),
  }
  const tolerance = toleranceOf(queryDtype, kvDtype)
  const places = [
    [0, 0],
    [T >> 1, heads >> 1],
    [T - 1, heads - 1],
  ] as const
  for (const [token, head] of places) {
    const expected = referenceRow(attentionCase, inputs, token, head)
    const at = (token * heads + head) * headDim
    const difference = largestDifference(result.subarray(at, at + headDim), expected)
    if (difference <= tolerance) continue
    throw disagreement(who, `the reference at token ${token}, head ${head}`, difference, tolerance, attentionCase)
  }
}

type Inputs = Readonly<{ query: FloatArray; key: StorageArray; value: StorageArray }>

function referenceRow(attentionCase: AttentionCase, inputs: Inputs, token: number, head: number): Float32Array {
  const { heads, kvHeads, headDim: D, kvDtype, queryDtype, length, window } = attentionCase
  const position = length - numQueries(attentionCase) + token
  const numRows = position + 1
  const at = (token * heads + head) * D
  const kvHead = Math.floor((head * kvHeads) / heads)
  const output = new Float32Array(D)
  attend({
    ...{ query: inputs.query.subarray(at, at + D), queryStorage: queryDtype, output, firstPosition: position },
    ...{ numTokens: 1, numHeads: 1, numKvHeads: 1, headDim: D, valueDim: D, scale: 1 / Math.sqrt(D), right: 0 },
    left: window === null ? undefined : window - 1,
    segments: [
      {
        ...{ storage: kvDtype, capacity: numRows, lengths: Int32Array.of(numRows), firstPosition: 0 },
        keys: rowsOfHead(attentionCase, inputs.key, kvHead, numRows),
        values: rowsOfHead(attentionCase, inputs.value, kvHead, numRows),
      },
    ],
  })
  return output
}

/** The first rows of a KV head: `[K, S, D]` of a decode step, `[N, K, D]` of a prefill. */
function rowsOfHead(attentionCase: AttentionCase, all: StorageArray, k: number, numRows: number): StorageArray {
  const { phase, kvHeads, headDim, kvDtype, length } = attentionCase
  const D = rowLength(headDim, kvDtype)
  if (phase === 'decode') return all.subarray(k * length * D, (k * length + numRows) * D)
  const rows = all.slice(0, numRows * D)
  for (let n = 0; n < numRows; n++) rows.set(all.subarray((n * kvHeads + k) * D, (n * kvHeads + k + 1) * D), n * D)
  return rows
}

function disagreement(who: string, whom: string, difference: number, tolerance: number, attentionCase: AttentionCase) {
  const text = `the result of ${who} differs from that of ${whom} by ${difference}, expected at most ${tolerance}`
  return new KvasirError('internal', 'bench', `${text} (${describeCase(attentionCase)})`)
}
