/** Which keys a bias selects: the best W or all above zero, smoothed by blocks (create_mask of flash_dmattn). */
import { type Kernels, NEVER } from '../kernels/index.ts'

export const maskKinds = ['topk', 'relu'] as const
export type MaskKind = (typeof maskKinds)[number]

export interface Selection {
  readonly keepWindowSize: number
  readonly maskKind: MaskKind
  readonly blockSize: number
  readonly isCausal: boolean
}

interface SelectedRows {
  /** `[N, S]`: the first lengths[n] of each row, ascending. */
  readonly rows: Int32Array
  /** `[N]` */
  readonly lengths: Int32Array
}

/**
 * What one query sees.
 * @param scores `[N, S]`
 * @param numVisible keys from the first on that it may see
 */
export function selectRows(
  kernels: Kernels,
  scores: Float32Array,
  N: number,
  S: number,
  numVisible: number,
  { keepWindowSize, maskKind, blockSize }: Selection,
): SelectedRows {
  const rows = new Int32Array(N * S)
  const lengths = new Int32Array(N)
  if (maskKind === 'topk') {
    const sizes = { numKvHeads: N, capacity: S, numRows: numVisible, window: keepWindowSize }
    kernels.select({ scores, ...sizes, rows, lengths })
  } else {
    for (let n = 0; n < N; n++) {
      let count = 0
      for (let j = 0; j < numVisible; j++) if ((scores[n * S + j] as number) > 0) rows[n * S + count++] = j
      lengths[n] = count
    }
  }
  if (blockSize > 1) {
    for (let n = 0; n < N; n++) {
      const chosen = rows.subarray(n * S, n * S + (lengths[n] as number))
      const smooth = smoothed(chosen, scores.subarray(n * S, (n + 1) * S), numVisible, blockSize)
      rows.set(smooth, n * S)
      lengths[n] = smooth.length
    }
  }
  return { rows, lengths }
}

/**
 * Blocks lie on the axis of all S keys, the last one short. Where more than half of a block was chosen, all of it that
 * the query may see stays; elsewhere nothing does, not even what was chosen.
 */
function smoothed(chosen: Int32Array, scores: Float32Array, numVisible: number, blockSize: number): number[] {
  const S = scores.length
  const counts = new Int32Array(Math.ceil(S / blockSize))
  for (const j of chosen) counts[Math.floor(j / blockSize)] = (counts[Math.floor(j / blockSize)] as number) + 1
  const kept: number[] = []
  for (const [block, count] of counts.entries()) {
    const [from, to] = [block * blockSize, Math.min((block + 1) * blockSize, S)]
    if (2 * count <= to - from) continue
    for (let j = from; j < Math.min(to, numVisible); j++) if (scores[j] !== Number.NEGATIVE_INFINITY) kept.push(j)
  }
  return kept
}

/**
 * When each key falls out of the best W of those so far: seen by queries at positions before that. A bias that is the
 * same for all queries never lets a key return.
 * @param scores `[K, S]`
 * @returns `[K, S]`
 */
export function lifetimesOf(
  kernels: Kernels,
  scores: Float32Array,
  K: number,
  S: number,
  keepWindowSize: number,
): Int32Array {
  const W = Math.max(1, Math.min(keepWindowSize, S))
  const deaths = new Int32Array(K * S).fill(NEVER)
  const byToken = new Float32Array(S * K)
  for (let k = 0; k < K; k++) for (let j = 0; j < S; j++) byToken[j * K + k] = scores[k * S + j] as number
  const integers = () => new Int32Array(K * W)
  kernels.retain({
    kept: {
      ...{ numKvHeads: K, window: W, sinks: 0, recent: 0, scores: new Float32Array(K * W) },
      ...{ positions: new Float64Array(K * W), lengths: new Int32Array(K), heap: integers() },
      ...{ heapLengths: new Int32Array(K), accepted: new Float64Array(K), ring: new Int32Array(0) },
    },
    ...{ scores: byToken, numTokens: S, firstPosition: 0, tokenDeaths: deaths },
    ...{ counts: new Int32Array(K), tokens: integers(), slots: integers() },
  })
  return deaths
}
