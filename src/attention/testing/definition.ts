/**
 * Attention by its formula in f64, one row at a time: what the tests of this folder hold every function to. It shares
 * nothing with the kernels' own reference; who sees whom is said by each test in the words of the peer's documentation.
 */

export interface Sizes {
  readonly B: number
  readonly T: number
  readonly S: number
  readonly H: number
  readonly K: number
  readonly D: number
  readonly E: number
}

interface Definition extends Sizes {
  /** `[B, T, H, D]` */
  readonly q: ArrayLike<number>
  /** `[B, S, K, D]` */
  readonly k: ArrayLike<number>
  /** `[B, S, K, E]` */
  readonly v: ArrayLike<number>
  /** Default: all. */
  readonly sees?: (at: Pair) => boolean
  /** Default 0. */
  readonly added?: (at: Pair) => number
  readonly scale?: number
  readonly softcap?: number
  /** Logit of a virtual key. */
  readonly sink?: (h: number) => number
}

/** Query t and key j of head h (KV head k) of sequence b. */
export interface Pair {
  readonly b: number
  readonly h: number
  readonly k: number
  readonly t: number
  readonly j: number
}

export interface Defined {
  /** `[B, T, H, E]` */
  readonly output: Float64Array
  /** `[B, T, H]` */
  readonly lse: Float64Array
}

export function define(definition: Definition): Defined {
  const { B, T, S, H, K, D, E, q, k: keys, v, sees = () => true, added = () => 0, softcap, sink } = definition
  const { scale = 1 / Math.sqrt(D) } = definition
  const output = new Float64Array(B * T * H * E)
  const lse = new Float64Array(B * T * H)
  for (let row = 0; row < B * T * H; row++) {
    const [b, t, h] = [Math.floor(row / (T * H)), Math.floor(row / H) % T, row % H]
    const k = Math.floor(h / (H / K))
    const logits = Array.from({ length: S }, (_, j) => {
      if (!sees({ b, h, k, t, j })) return Number.NEGATIVE_INFINITY
      let dot = 0
      for (let d = 0; d < D; d++) dot += at(q, row * D + d) * at(keys, ((b * S + j) * K + k) * D + d)
      const scaled = dot * scale
      return (softcap ? softcap * Math.tanh(scaled / softcap) : scaled) + added({ b, h, k, t, j })
    })
    const most = Math.max(Number.NEGATIVE_INFINITY, ...logits, sink?.(h) ?? Number.NEGATIVE_INFINITY)
    lse[row] = most
    if (most === Number.NEGATIVE_INFINITY) continue
    const weights = logits.map((logit) => Math.exp(logit - most))
    const sum = weights.reduce((a, b) => a + b, sink ? Math.exp(sink(h) - most) : 0)
    lse[row] = most + Math.log(sum)
    for (const [j, weight] of weights.entries()) {
      if (weight === 0) continue
      for (let e = 0; e < E; e++) {
        output[row * E + e] = at(output, row * E + e) + (weight / sum) * at(v, ((b * S + j) * K + k) * E + e)
      }
    }
  }
  return { output, lse }
}

function at(array: ArrayLike<number>, index: number): number {
  return array[index] as number
}
