/** Features with mean 0 and deviation 1, for fitting; weights fitted to them are turned back to plain features. */
import type { Samples } from './samples.ts'

export interface Standard {
  /** `[n, F]` */
  readonly rows: Float64Array
  /** `[n]`, mean 0 */
  readonly targets: Float64Array
  /** Weights of samples, their sum n. */
  readonly weights: Float64Array
  readonly numFeatures: number
  /** `[F]` */
  readonly means: Float64Array
  /** `[F]`; 0 for a feature that is the same everywhere, which then says nothing */
  readonly scales: Float64Array
  readonly targetMean: number
}

export function standardise(samples: Samples): Standard {
  const { numFeatures: F, count, features } = samples
  const total = samples.weights.reduce((a, b) => a + b, 0)
  const weights = samples.weights.map((weight) => (weight * count) / total)
  const [means, squares] = [new Float64Array(F), new Float64Array(F)]
  let targetMean = 0
  for (let n = 0; n < count; n++) {
    const share = (weights[n] as number) / count
    targetMean += share * (samples.targets[n] as number)
    for (let f = 0; f < F; f++) means[f]! += share * (features[n * F + f] as number)
  }
  for (let n = 0; n < count; n++) {
    const share = (weights[n] as number) / count
    for (let f = 0; f < F; f++) squares[f]! += share * ((features[n * F + f] as number) - means[f]!) ** 2
  }
  const scales = squares.map((square) => (square > 1e-12 ? 1 / Math.sqrt(square) : 0))
  const rows = new Float64Array(count * F)
  for (let n = 0; n < rows.length; n++) rows[n] = ((features[n] as number) - means[n % F]!) * scales[n % F]!
  const targets = samples.targets.map((target) => target - targetMean)
  return { rows, targets, weights, numFeatures: F, means, scales, targetMean }
}

/** Of `w . standardised + b`: the weights of plain features, and what comes to b. */
export function toPlain({ means, scales }: Standard, w: ArrayLike<number>): { weight: Float32Array; bias: number } {
  const weight = Float32Array.from(scales, (scale, f) => scale * (w[f] as number))
  return { weight, bias: -weight.reduce((sum, value, f) => sum + value * (means[f] as number), 0) }
}
