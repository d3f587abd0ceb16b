/** What `linear` ranks tokens by, by name. One more is one more line here. */
import type { ImportanceName, ImportanceSource } from '../cache/contract.ts'
import type { StaticRetention } from '../cache/retention.ts'
import { keyNorm, valueNorm } from './norms.ts'

const sources = {
  model: 'importance',
  'value-norm': valueNorm,
  'key-norm': keyNorm,
} as const satisfies Record<ImportanceName, StaticRetention['rankBy']>

export const importanceNames = Object.keys(sources) as readonly ImportanceName[]

export function importanceOf(importance: ImportanceSource = 'model'): StaticRetention {
  return { kind: 'static', rankBy: typeof importance === 'function' ? importance : sources[importance] }
}
