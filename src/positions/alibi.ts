/** ALiBi (arXiv 2108.12409): scores fall by a slope of the head for each position of distance; no rotation. */
import { checkInteger, describe } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'

/**
 * The slopes of any number of heads. A power of two n has 2^(-maxBias * (h + 1) / n); other numbers take those of the
 * largest power of two c below, then every second one of 2 c heads, as in the paper's code; MPT's rule gives the same.
 * @param maxBias MPT's `alibi_bias_max`
 * @returns `[H]`, each above 0: what is subtracted from a scaled logit for each position between query and key. Models
 * that add the bias before scaling (Falcon) want these slopes times the scale.
 * @throws KvasirError `invalid-argument` for a number of heads or a bias that makes no sense
 */
export function alibiSlopes(numHeads: number, maxBias = 8): Float32Array {
  checkInteger('positions', 'numHeads', numHeads, 1, 1 << 16)
  if (!(Number.isFinite(maxBias) && maxBias > 0)) {
    throw invalidArgument('positions', `expected a number above 0 for maxBias, got ${describe(maxBias)}`)
  }
  const power = 2 ** (31 - Math.clz32(numHeads))
  const slope = (rank: number, heads: number): number => 2 ** ((-maxBias * rank) / heads)
  return Float32Array.from({ length: numHeads }, (_, head) =>
    head < power ? slope(head + 1, power) : slope(2 * (head - power) + 1, 2 * power),
  )
}
