/**
 * Numbers that a ranked layer can't live with: NaN and Infinity, those that storage makes Infinity of, and those whose
 * products overflow. In a key or a query that is weighed, one of them makes all scores of its head NaN, and as long as it
 * is kept; so it is refused while the layer is still what it was.
 */
import { invalidArgument } from '../../tensor/error.ts'
import type { LayerInput, LayerShape } from '../contract.ts'
import type { RowTypes } from '../storage/row-types.ts'

/** The largest number of f16. */
const mostOfHalf = 65504
/** Products of two, summed over a row, are far from the largest number of f32. */
const mostOfProducts = 1e15

type Magnitudes = Readonly<Record<'query' | 'key' | 'value', number>>

/** What numbers may come to, if nothing that they become on their way into storage is to overflow. */
export function magnitudesOf(
  { keyType, valueType, hadamard, residual }: RowTypes,
  { headDim, valueDim }: LayerShape,
  rotates: boolean,
): Magnitudes {
  const stored = (type: string, dim: number, turns: number): number => {
    if (type !== 'f16' && residual === 0) return mostOfProducts
    return mostOfHalf / Math.sqrt(turns * (hadamard ? dim : 1))
  }
  return {
    query: mostOfProducts,
    key: stored(keyType, headDim, rotates ? 2 : 1),
    value: stored(valueType, valueDim, 1),
  }
}

/** @throws KvasirError `invalid-argument` naming what is NaN or too large */
export function checkMagnitudes(
  input: Partial<LayerInput>,
  { numHeads, numKvHeads, headDim, valueDim }: LayerShape,
  most: Magnitudes,
): void {
  const { query, key, value, numTokens = 0 } = input
  check('query', query, numTokens * numHeads * headDim, most.query)
  check('key', key, numTokens * numKvHeads * headDim, most.key)
  check('value', value, numTokens * numKvHeads * valueDim, most.value)
}

function check(name: string, numbers: Float32Array | undefined, length: number, most: number): void {
  const found = numbers ? firstBeyond(numbers, length, most) : length
  if (found === length) return
  const range = `numbers of magnitude up to ${Math.floor(most)} in ${name}`
  throw invalidArgument('cache', `expected ${range}, since this policy ranks by what comes, got ${numbers?.[found]}`)
}

/** Four at once, plainly: it is done at every step, and one by one takes twice the time. */
function firstBeyond(numbers: Float32Array, length: number, most: number): number {
  let n = 0
  for (; n + 3 < length; n += 4) {
    const a = Math.abs(numbers[n] as number)
    const b = Math.abs(numbers[n + 1] as number)
    const c = Math.abs(numbers[n + 2] as number)
    const d = Math.abs(numbers[n + 3] as number)
    if (!(a <= most && b <= most && c <= most && d <= most)) break
  }
  while (n < length && Math.abs(numbers[n] as number) <= most) n++
  return n
}
