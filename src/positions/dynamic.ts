/**
 * NTK-aware scaling by length: up to max_position_embeddings (M) plain RoPE, beyond it theta grows with the length L,
 * theta * (factor * L / M - (factor - 1)) ^ (R / (R - 1)) for R pairs. Each new length has its own table.
 */
import type { RotaryEntry } from './contract.ts'
import { plainFrequencies, rotaryPairs, tableByLength } from './frequencies.ts'
import { invalid, maxPositions, positive } from './parameters.ts'

export const dynamicRope: RotaryEntry = (config) => {
  const factor = positive(config.parameters, 'factor')
  const trained = maxPositions(config)
  const pairs = rotaryPairs(config)
  if (pairs === 1) throw invalid('a rotary width of at least 4 for rope_type "dynamic"', '2')
  const frequencies = (theta: number) => ({ inverseFrequencies: plainFrequencies(theta, pairs), attentionFactor: 1 })
  return tableByLength(trained, frequencies(config.theta), (length) => {
    const growth = (factor * length) / trained - (factor - 1)
    return frequencies(config.theta * growth ** (pairs / (pairs - 1)))
  })
}
