/** What a naive layer is made with, and how its tokens look to attention once they are stored. */
import type { LayerShape } from '../../cache/contract.ts'
import type { StorageType } from '../../kernels/index.ts'
import type { NaiveRules } from './naive-rules.ts'
import { type Frequencies, type NaiveFormat, type NaiveToken, stored, turn } from './naive-token.ts'

export interface NaiveOptions {
  readonly shape: LayerShape
  readonly layer: number
  readonly rules: NaiveRules
  readonly seed: number
  readonly keyStorage: StorageType
  readonly valueStorage: StorageType
  /** Rows go through a Hadamard transform. */
  readonly isTransformed: boolean
  /** Queries see the last so many tokens in f16. */
  readonly residual: number
  /** Absent: keys and queries come rotated, or never are. */
  readonly frequencies?: Frequencies
  readonly isRank: boolean
  /** Pages of evicted tokens that come back for a query. */
  readonly recall?: number | undefined
}

/** As the query at `position` sees it. */
export function storedKey(token: NaiveToken, position: number, options: NaiveOptions): Float64Array {
  const { keyStorage, frequencies } = options
  const { key, number, hasMoved } = token
  const format = formatOf(token, position, keyStorage, options)
  if (!frequencies) return stored(key, format)
  return stored(turn(hasMoved ? stored(key, format) : key, frequencies, number), format)
}

export function storedValue(token: NaiveToken, position: number, options: NaiveOptions): Float64Array {
  return stored(token.value, formatOf(token, position, options.valueStorage, options))
}

function formatOf(token: NaiveToken, position: number, storage: StorageType, options: NaiveOptions): NaiveFormat {
  const isRecent = position < token.position + options.residual && !token.hasLeft
  return { storage: isRecent ? 'f16' : storage, isTransformed: options.isTransformed }
}

/** As the page of a token has it: never left in f16. */
export function archivedKey({ key, number }: NaiveToken, options: NaiveOptions): Float64Array {
  const { keyStorage: storage, isTransformed, frequencies } = options
  return stored(frequencies ? turn(key, frequencies, number) : key, { storage, isTransformed })
}

export function archivedValue(
  { value }: NaiveToken,
  { valueStorage: storage, isTransformed }: NaiveOptions,
): Float64Array {
  return stored(value, { storage, isTransformed })
}
