/** Finds the rotary parameters in config.json, where old and new transformers versions put them in different places. */
import { describe } from '../tensor/check.ts'
import { KvasirError } from '../tensor/error.ts'
import type { RotaryConfig } from './contract.ts'

type Config = Readonly<Record<string, unknown>>

/**
 * @param headDim D; the rotary width is trunc(D * partial_rotary_factor)
 * @throws KvasirError `invalid-file` for values that make no sense, `unsupported` for tables that differ by layer type
 */
export function readRotaryConfig(config: Config, headDim: number): RotaryConfig & { readonly type: string } {
  // With both forms present the old dictionary wins and outer keys only fill gaps, as in transformers 5.
  const parameters = dictionary(config, 'rope_scaling') ?? dictionary(config, 'rope_parameters') ?? {}
  const theta = number('rope_theta', parameters.rope_theta ?? config.rope_theta ?? 10000)
  const factor = number('partial_rotary_factor', parameters.partial_rotary_factor ?? config.partial_rotary_factor ?? 1)
  const width = Math.trunc(headDim * factor)
  if (width < 2 || width > headDim || width % 2) {
    throw invalid(`an even rotary width in 2..${headDim}`, `${width} (partial_rotary_factor ${factor})`)
  }
  const type = parameters.rope_type ?? parameters.type ?? 'default'
  if (typeof type !== 'string') throw invalid('a string for rope_type', describe(type))
  return { type, theta, pairs: width / 2, parameters }
}

function dictionary(config: Config, key: string): Config | undefined {
  const value = config[key]
  if (value === undefined || value === null) return undefined
  if (typeof value !== 'object' || Array.isArray(value)) throw invalid(`an object for ${key}`, describe(value))
  const nested = Object.keys(value).find((name) => name.endsWith('_attention'))
  if (nested === undefined) return value as Config
  throw new KvasirError('unsupported', 'positions', `expected one ${key} for all layers, got "${nested}"`)
}

function number(key: string, value: unknown): number {
  if (typeof value === 'number' && Number.isFinite(value) && value > 0) return value
  throw invalid(`a number above 0 for ${key}`, describe(value))
}

function invalid(expected: string, got: string): KvasirError {
  return new KvasirError('invalid-file', 'positions', `config.json: expected ${expected}, got ${got}`)
}
