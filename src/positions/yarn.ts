/**
 * YaRN (arXiv 2309.00071): fast pairs stay, slow ones are divided by `factor`, a ramp over the pair index lies between;
 * cos and sin grow a little to keep the softmax as sharp as it was. The table is the same at every length.
 */
import { describe } from '../tensor/check.ts'
import type { RotaryConfig, RotaryEntry } from './contract.ts'
import { fixedTable, plainFrequencies, rotaryPairs } from './frequencies.ts'
import { type Dictionary, factorOrRatio, invalid, optionalCoefficient, originalMaxPositions } from './parameters.ts'

export const yarnRope: RotaryEntry = (config) => {
  const factor = factorOrRatio(config)
  const { low, high } = yarnRange(config)
  // As in transformers: equal ends would divide by zero.
  const span = low === high ? 0.001 : high - low
  const scaled = plainFrequencies(config.theta, rotaryPairs(config)).map((frequency, i) => {
    const ramp = Math.min(Math.max((i - low) / span, 0), 1)
    return frequency * (1 - ramp) + (frequency / factor) * ramp
  })
  return fixedTable(scaled, attentionFactor(config.parameters, factor))
}

/** The pair indices between which the ramp lies: those that make beta_fast and beta_slow turns in the original context. */
export function yarnRange(config: RotaryConfig): { readonly low: number; readonly high: number } {
  const { parameters, theta } = config
  // 0 counts as absent, as in transformers.
  const fast = optionalCoefficient(parameters, 'beta_fast') || 32
  const slow = optionalCoefficient(parameters, 'beta_slow') || 1
  if (!(fast >= slow)) throw invalid(`a beta_fast of at least beta_slow ${slow}`, `${fast}`)
  if (!(theta > 1)) throw invalid('a rope_theta above 1 for rope_type "yarn"', `${theta}`)
  const pairs = rotaryPairs(config)
  const original = originalMaxPositions(config)
  const indexOf = (turns: number): number => (pairs * Math.log(original / (turns * 2 * Math.PI))) / Math.log(theta)
  const isWhole = readTruncate(parameters)
  const low = isWhole ? Math.floor(indexOf(fast)) : indexOf(fast)
  const high = isWhole ? Math.ceil(indexOf(slow)) : indexOf(slow)
  // The upper bound is the rotary width less one, not the number of pairs less one: so it is in the original code.
  return { low: Math.max(low, 0), high: Math.min(high, 2 * pairs - 1) }
}

function readTruncate({ truncate }: Dictionary): boolean {
  if (truncate === undefined || truncate === null) return true
  if (typeof truncate === 'boolean') return truncate
  throw invalid('true or false for truncate', describe(truncate))
}

function attentionFactor(parameters: Dictionary, factor: number): number {
  const explicit = optionalCoefficient(parameters, 'attention_factor')
  if (explicit !== undefined) return explicit
  const mscale = optionalCoefficient(parameters, 'mscale')
  const mscaleAllDim = optionalCoefficient(parameters, 'mscale_all_dim')
  return mscale && mscaleAllDim ? sharpness(factor, mscale) / sharpness(factor, mscaleAllDim) : sharpness(factor, 1)
}

function sharpness(factor: number, weight: number): number {
  return factor <= 1 ? 1 : 0.1 * weight * Math.log(factor) + 1
}
