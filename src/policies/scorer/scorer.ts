/**
 * A learned score as a static importance: linear in the features of a token, or with one hidden layer of ReLUs, plus a
 * slope over positions. The slope is how a score that never changes says that a head forgets: of two tokens the newer
 * one is ahead by it for each token between them, at any time.
 */
import type { CacheShape, LayerShape, NewTokens, ScoreTokens } from '../../cache/contract.ts'
import { invalidArgument } from '../../tensor/error.ts'
import { countFeatures, type KeyRotation, readFeatures } from './features.ts'

/** Of one layer. Arrays are row-major. */
export interface ScorerLayer {
  readonly rotation: KeyRotation
  /** N, hidden units; 0: the score is linear. */
  readonly hidden: number
  /** `[K, F]`, or `[K, N, F]` */
  readonly weight: Float32Array
  /** `[K]`, or `[K, N]` */
  readonly bias: Float32Array
  /** `[K, N]`; empty for a linear score */
  readonly output: Float32Array
  /** `[K]` for each token of position */
  readonly slope: Float32Array
}

/** By layer; undefined for those that have a window of their own, which nothing ranks. */
export type ScorerLayers = readonly (ScorerLayer | undefined)[]

/** @throws KvasirError `invalid-argument` for layers that are not those of the model */
export function createScorer(layers: ScorerLayers, { layers: shapes }: Pick<CacheShape, 'layers'>): ScoreTokens {
  if (layers.length !== shapes.length) {
    throw invalidArgument('cache', `expected a scorer of ${shapes.length} layers, got ${layers.length}`)
  }
  for (const [index, layer] of layers.entries()) checkLayer(layer, shapes[index] as LayerShape, index)
  const features = layers.map((layer, index) => {
    return new Float32Array(layer ? countFeatures(shapes[index] as LayerShape, layer.rotation) : 0)
  })
  return (tokens, scores) => {
    const layer = layers[tokens.layer]
    if (layer) scoreAll(layer, tokens, features[tokens.layer] as Float32Array, scores)
  }
}

function scoreAll(layer: ScorerLayer, tokens: NewTokens, features: Float32Array, scores: Float32Array): void {
  const { numTokens, numKvHeads, firstPosition } = tokens
  const score = layer.hidden === 0 ? linearScore : hiddenScore
  for (let k = 0; k < numKvHeads; k++) {
    const slope = layer.slope[k] as number
    for (let t = 0; t < numTokens; t++) {
      readFeatures(tokens, t, k, layer.rotation, features)
      scores[t * numKvHeads + k] = score(layer, k, features) + slope * (firstPosition + t)
    }
  }
}

function linearScore({ weight, bias }: ScorerLayer, k: number, features: Float32Array): number {
  return (bias[k] as number) + dot(weight, k * features.length, features)
}

function hiddenScore({ weight, bias, output, hidden }: ScorerLayer, k: number, features: Float32Array): number {
  let sum = 0
  for (let n = k * hidden; n < (k + 1) * hidden; n++) {
    const value = (bias[n] as number) + dot(weight, n * features.length, features)
    if (value > 0) sum += value * (output[n] as number)
  }
  return sum
}

function dot(weights: Float32Array, start: number, features: Float32Array): number {
  let sum = 0
  for (let f = 0; f < features.length; f++) sum += (weights[start + f] as number) * (features[f] as number)
  return sum
}

function checkLayer(layer: ScorerLayer | undefined, shape: LayerShape, index: number): void {
  if (!layer) {
    if (shape.window !== undefined) return
    throw invalidArgument('cache', `expected a scorer for layer ${index}, got none`)
  }
  const { numKvHeads: K } = shape
  const F = countFeatures(shape, layer.rotation)
  const units = K * Math.max(1, layer.hidden)
  const sizes = { weight: units * F, bias: units, output: K * layer.hidden, slope: K }
  for (const [name, size] of Object.entries(sizes)) {
    const numbers = layer[name as keyof typeof sizes]
    const what = `of the ${name} of layer ${index} of a scorer`
    if (numbers.length !== size)
      throw invalidArgument('cache', `expected ${size} numbers ${what}, got ${numbers.length}`)
    if (!numbers.every(Number.isFinite)) throw invalidArgument('cache', `expected finite numbers ${what}`)
  }
}
