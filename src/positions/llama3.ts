/**
 * Llama 3.1: pairs that turn often within the original context stay, slow ones are divided by `factor`, between
 * the two they blend by how many turns they make.
 */
import type { RotaryEntry } from './contract.ts'
import { fixedTable, plainFrequencies, rotaryPairs } from './frequencies.ts'
import { invalid, originalMaxPositions, positive } from './parameters.ts'

export const llama3Rope: RotaryEntry = (config) => {
  const factor = positive(config.parameters, 'factor')
  const low = positive(config.parameters, 'low_freq_factor')
  const high = positive(config.parameters, 'high_freq_factor')
  if (!(high >= low)) throw invalid(`a high_freq_factor of at least low_freq_factor ${low}`, `${high}`)
  const original = originalMaxPositions(config)
  const scaled = plainFrequencies(config.theta, rotaryPairs(config)).map((frequency) => {
    const turns = (original * frequency) / (2 * Math.PI)
    // Llama 4 has equal factors: nothing lies between.
    const kept = high > low ? Math.min(Math.max((turns - low) / (high - low), 0), 1) : Number(turns >= high)
    return ((1 - kept) * frequency) / factor + kept * frequency
  })
  return fixedTable(scaled)
}
