/**
 * Gemma 4, global layers: the table spans the whole head, and the exponent divides by the whole head, but only the
 * first pairs turn, a share partial_rotary_factor of them. Pairs are (i, i + D / 2), so what isn't turned lies in two
 * stretches, unlike the tail that other types leave.
 */
import type { RotaryEntry } from './contract.ts'
import { fixedTable, plainFrequencies } from './frequencies.ts'
import { invalid, positive } from './parameters.ts'

export const proportionalRope: RotaryEntry = ({ theta, headDim, partialFactor, parameters }) => {
  if (headDim % 2) throw invalid('an even head dim for rope_type "proportional"', `${headDim}`)
  if (partialFactor > 1) throw invalid('a partial_rotary_factor up to 1', `${partialFactor}`)
  const factor = positive(parameters, 'factor', 1)
  const turned = Math.floor((partialFactor * headDim) / 2)
  return fixedTable(plainFrequencies(theta, headDim / 2).map((frequency, i) => (i < turned ? frequency / factor : 0)))
}
