/** Typed reading of a rope dictionary: each function returns what it promises or says what was expected and what came. */
import { describe } from '../tensor/check.ts'
import { KvasirError } from '../tensor/error.ts'
import type { RotaryConfig } from './contract.ts'

export type Dictionary = Readonly<Record<string, unknown>>

/** A finite number above 0; without a fallback it must be there. */
export function positive(values: Dictionary, key: string, fallback?: number): number {
  const value = values[key] ?? fallback
  if (typeof value === 'number' && Number.isFinite(value) && value > 0) return value
  throw invalid(`a number above 0 for ${key}`, describe(value))
}

/** A finite number above 0, or undefined where there is none. */
export function optionalPositive(values: Dictionary, key: string): number | undefined {
  return values[key] === undefined || values[key] === null ? undefined : positive(values, key)
}

/** A finite number of at least 0, or undefined where there is none. */
export function optionalCoefficient(values: Dictionary, key: string): number | undefined {
  const value = values[key] ?? undefined
  if (value === undefined || (typeof value === 'number' && Number.isFinite(value) && value >= 0)) return value
  throw invalid(`a number of at least 0 for ${key}`, describe(value))
}

/** `length` finite numbers above 0. */
export function positiveList(values: Dictionary, key: string, length: number): readonly number[] {
  const list = values[key] ?? undefined
  if (!Array.isArray(list) || list.length !== length) {
    throw invalid(`a list of ${length} numbers for ${key}`, describe(list))
  }
  return list.map((_, i) => positive({ [`${key}[${i}]`]: list[i] }, `${key}[${i}]`))
}

/** max_position_embeddings, for types that can't do without. */
export function maxPositions({ maxPositions: value }: RotaryConfig): number {
  if (value !== undefined) return value
  throw invalid('a number above 0 for max_position_embeddings', 'undefined')
}

/** The length of the training before it was extended; transformers takes max_position_embeddings when nothing says so. */
export function originalMaxPositions(config: RotaryConfig): number {
  return config.originalMaxPositions ?? maxPositions(config)
}

/** `factor`; where there is none, how much longer the model became than it was, when config.json says both. */
export function factorOrRatio(config: RotaryConfig): number {
  const { parameters, maxPositions: longer, originalMaxPositions: original } = config
  return positive(parameters, 'factor', original !== undefined && longer !== undefined ? longer / original : undefined)
}

export function invalid(expected: string, got: string): KvasirError {
  return new KvasirError('invalid-file', 'positions', `config.json: expected ${expected}, got ${got}`)
}
