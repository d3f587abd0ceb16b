/** A score of one head as it was fitted: `ScorerLayer` has those of all heads of a layer. */
export interface Fitted {
  /** N; 0: linear */
  readonly hidden: number
  /** `[F]`, or `[N, F]` */
  readonly weight: Float32Array
  /** `[1]`, or `[N]` */
  readonly bias: Float32Array
  /** `[N]` */
  readonly output: Float32Array
}

/** The score without its slope. */
export function scoreOf({ hidden, weight, bias, output }: Fitted, features: Float32Array): number {
  const F = features.length
  let total = 0
  for (let n = 0; n < Math.max(1, hidden); n++) {
    let sum = bias[n] as number
    for (let f = 0; f < F; f++) sum += (weight[n * F + f] as number) * (features[f] as number)
    total += hidden === 0 ? sum : Math.max(0, sum) * (output[n] as number)
  }
  return total
}
