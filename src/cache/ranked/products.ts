/** Products with rows `[n, D]` of f32 by the kernels, for policies that look at keys: attention that leaves its logits. */
import type { Kernels, KeyValueSegment } from '../../kernels/index.ts'

/** Logits that one call leaves: more queries go in several calls. */
const mostLogits = 2 ** 20

export class RowProducts {
  readonly #kernels: Kernels

  constructor(kernels: Kernels) {
    this.#kernels = kernels
  }

  /** q . k of each query `[count, D]` and row, `[count, n]`. */
  products(queries: Float32Array, rows: Float32Array, dim: number): Float32Array {
    const [count, n] = [queries.length / dim, rows.length / dim]
    const products = new Float32Array(count * n)
    const step = Math.max(1, Math.floor(mostLogits / Math.max(1, n)))
    // Values play no part: one number each is the least that attention can have.
    const segment = segmentOf(rows, new Float32Array(n), n)
    for (let first = 0; first < count && n > 0; first += step) {
      // As heads of one token: kernels that leave logits read each row once for all heads of a token.
      const numHeads = Math.min(step, count - first)
      this.#kernels.attend({
        ...{ query: queries.subarray(first * dim, (first + numHeads) * dim), output: new Float32Array(numHeads) },
        ...{ logits: products.subarray(first * n, (first + numHeads) * n), numTokens: 1, numHeads, numKvHeads: 1 },
        ...{ headDim: dim, valueDim: 1, scale: 1, firstPosition: 0, segments: [segment] },
      })
    }
    return products
  }

  /** The mean of the rows, weighted by exp(logWeights) `[n]`; zeros where all weights are zero. */
  mean(rows: Float32Array, dim: number, logWeights: Float32Array): Float32Array {
    const output = new Float32Array(dim)
    this.#kernels.attend({
      ...{ query: new Float32Array(dim), output, numTokens: 1, numHeads: 1, numKvHeads: 1 },
      ...{ headDim: dim, valueDim: dim, scale: 1, firstPosition: 0 },
      segments: [{ ...segmentOf(rows, rows, logWeights.length), bias: logWeights }],
    })
    return output
  }
}

function segmentOf(keys: Float32Array, values: Float32Array, count: number): KeyValueSegment {
  return { keys, values, capacity: count, lengths: Int32Array.of(count) }
}
