/** What `linear` ranks tokens by, by name. One more that needs no training is one more line here. */
import type { ImportanceName, ImportanceSource } from '../cache/contract.ts'
import type { StaticRetention } from '../cache/retention.ts'
import { checkChoice, checkKeys, describe } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import { keyNorm, valueNorm } from './norms.ts'

type PlainName = Exclude<ImportanceName, 'learned'>

const plain = {
  model: 'importance',
  'value-norm': valueNorm,
  'key-norm': keyNorm,
} as const satisfies Record<PlainName, StaticRetention['rankBy']>

/** Those that any model has, or computes itself. */
export const plainImportances = Object.keys(plain) as readonly PlainName[]

export const importanceNames: readonly ImportanceName[] = [...plainImportances, 'learned']

/** @throws KvasirError `invalid-argument` for a scorer in a file: whoever knows the model reads it first */
export function importanceOf(importance: ImportanceSource = 'model'): StaticRetention {
  if (typeof importance === 'function') return { kind: 'static', rankBy: importance }
  if (importance === 'learned' || typeof importance === 'object') {
    throw invalidArgument('cache', 'expected a cache of a loaded model for a learned importance: its scorer is a file')
  }
  return { kind: 'static', rankBy: plain[importance] }
}

/**
 * Whether `importance` of the cache options is one of `importanceNames`, a function or `{ scorer }`.
 * @throws KvasirError `invalid-argument`
 */
export function checkImportanceSource(importance: ImportanceSource): void {
  if (typeof importance === 'function') return
  if (typeof importance !== 'object') {
    checkChoice('cache', 'importance', importance, importanceNames)
    return
  }
  checkKeys('cache', 'importance', importance ?? {}, ['scorer'])
  if (typeof importance?.scorer === 'string' && importance.scorer !== '') return
  throw invalidArgument('cache', `expected the path of a scorer for importance, got ${describe(importance?.scorer)}`)
}

/** A learned score may leave so many of the last tokens to age; others say nothing of it. */
export function recentOf({ importance }: { readonly importance?: ImportanceSource }): {
  tokens: number
  share: number
} {
  return { tokens: (typeof importance === 'function' && importance.recent) || 0, share: 0.25 }
}
