/**
 * What a learned score sees of a token, for each KV head: its value, its key as far as rotation leaves it alone (the
 * length of each rotated pair, and what is not rotated), the logarithms of both norms, and whether it is one of the
 * first. So the score of a token is the same in caches that rotate keys before and after they score.
 */
import type { LayerShape, NewTokens } from '../../cache/contract.ts'

/** Changes when what a feature means changes: scorers of another version are refused. */
export const featureVersion = 1

/** How keys of a layer are rotated; no pairs: not at all. */
export interface KeyRotation {
  /** R */
  readonly pairs: number
  readonly isInterleaved: boolean
}

/** Tokens below these positions have a feature of their own: attention leans on the first ones. */
const firsts = [1, 4, 16] as const
const tiny = 1e-6

/** F: numbers of a token at one head. */
export function countFeatures(
  { headDim, valueDim }: Pick<LayerShape, 'headDim' | 'valueDim'>,
  { pairs }: KeyRotation,
): number {
  return valueDim + headDim - pairs + 2 + firsts.length
}

/**
 * Writes the features of token t at head k.
 * @param out `[F]`
 */
export function readFeatures(tokens: NewTokens, t: number, k: number, rotation: KeyRotation, out: Float32Array): void {
  const { key, value, numKvHeads, headDim: D, valueDim: E, firstPosition } = tokens
  const row = t * numKvHeads + k
  let n = 0
  let valueSquares = 0
  for (let e = row * E; e < (row + 1) * E; e++) {
    const x = value[e] as number
    valueSquares += x * x
    out[n++] = x
  }
  const { pairs, isInterleaved } = rotation
  const base = row * D
  const [step, apart] = isInterleaved ? [2, 1] : [1, pairs]
  let keySquares = 0
  for (let i = 0; i < pairs; i++) {
    const a = key[base + i * step] as number
    const b = key[base + i * step + apart] as number
    const squares = a * a + b * b
    keySquares += squares
    out[n++] = Math.sqrt(squares)
  }
  for (let d = base + 2 * pairs; d < base + D; d++) {
    const x = key[d] as number
    keySquares += x * x
    out[n++] = x
  }
  out[n++] = 0.5 * Math.log(valueSquares + tiny)
  out[n++] = 0.5 * Math.log(keySquares + tiny)
  const position = firstPosition + t
  for (const first of firsts) out[n++] = position < first ? 1 : 0
}
