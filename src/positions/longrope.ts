/**
 * LongRoPE (arXiv 2402.13753; Phi-3, MiniCPM): each pair's frequency is divided by a factor of its own, from the list
 * `short_factor` up to the original context, from `long_factor` when the sequence is longer.
 */
import type { RotaryConfig, RotaryEntry, RotaryTable } from './contract.ts'
import { plainFrequencies, rotaryPairs, tableByLength } from './frequencies.ts'
import { factorOrRatio, optionalCoefficient, originalMaxPositions, positiveList } from './parameters.ts'

export const longRope: RotaryEntry = (config) => {
  const common = attentionFactor(config)
  const short = table(config, 'short', common)
  const long = table(config, 'long', common)
  return tableByLength(originalMaxPositions(config), short, () => long)
}

function table(config: RotaryConfig, kind: 'short' | 'long', common: number): RotaryTable {
  const pairs = rotaryPairs(config)
  const factors = positiveList(config.parameters, `${kind}_factor`, pairs)
  return {
    inverseFrequencies: plainFrequencies(config.theta, pairs).map((frequency, i) => frequency / (factors[i] as number)),
    // PhiMoE has a factor for each table.
    attentionFactor: optionalCoefficient(config.parameters, `${kind}_mscale`) ?? common,
  }
}

/** The same for both tables, short texts included. */
function attentionFactor(config: RotaryConfig): number {
  const explicit = optionalCoefficient(config.parameters, 'attention_factor')
  if (explicit !== undefined) return explicit
  const factor = factorOrRatio(config)
  return factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(originalMaxPositions(config)))
}
