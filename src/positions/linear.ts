/** Position interpolation (arXiv 2306.15595): all frequencies divided by `factor`, as if positions were. */
import type { RotaryEntry } from './contract.ts'
import { fixedTable, plainFrequencies, rotaryPairs } from './frequencies.ts'
import { positive } from './parameters.ts'

export const linearRope: RotaryEntry = (config) => {
  const factor = positive(config.parameters, 'factor')
  return fixedTable(plainFrequencies(config.theta, rotaryPairs(config)).map((frequency) => frequency / factor))
}
