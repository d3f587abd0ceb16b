/** What the encodings share: plain frequencies, and tables that are checked once when they are made. */
import { invalidArgument } from '../tensor/error.ts'
import type { RotaryConfig, RotaryTable, RotaryTables } from './contract.ts'
import { invalid } from './parameters.ts'

/** R, from the width that partial_rotary_factor leaves. */
export function rotaryPairs({ headDim, width, partialFactor }: RotaryConfig): number {
  if (width >= 2 && width <= headDim && width % 2 === 0) return width / 2
  throw invalid(`an even rotary width in 2..${headDim}`, `${width} (partial_rotary_factor ${partialFactor})`)
}

/** `[R]` theta^(-i / R) */
export function plainFrequencies(theta: number, pairs: number): Float64Array {
  return Float64Array.from({ length: pairs }, (_, i) => theta ** (-i / pairs))
}

/** One table for all lengths. */
export function fixedTable(inverseFrequencies: Float64Array, attentionFactor = 1): RotaryTables {
  const table = checkTable({ inverseFrequencies, attentionFactor })
  return { pairs: inverseFrequencies.length, fixedUpTo: Number.POSITIVE_INFINITY, at: () => table }
}

/** One table up to a length, and another, which may depend on the length, beyond it. */
export function tableByLength(
  fixedUpTo: number,
  table: RotaryTable,
  beyond: (length: number) => RotaryTable,
): RotaryTables {
  checkTable(table)
  // A type whose numbers overflow is refused when the model is loaded, not in the middle of a text.
  checkTable(beyond(fixedUpTo + 1))
  const at = (length: number): RotaryTable => {
    if (length <= fixedUpTo) return table
    if (length < Number.POSITIVE_INFINITY) return beyond(length)
    throw invalidArgument('positions', `expected a finite length, got ${length}`)
  }
  return { pairs: table.inverseFrequencies.length, fixedUpTo, at }
}

/** Angles are finite up to this position. */
const farthest = Number.MAX_SAFE_INTEGER

/** Parameters that are fine one by one can still divide by zero together (theta 1, one token of training). */
function checkTable(table: RotaryTable): RotaryTable {
  const wrong = table.inverseFrequencies.findIndex(
    (value) => !(value >= 0 && value * farthest < Number.POSITIVE_INFINITY),
  )
  if (wrong >= 0)
    throw invalid('parameters with finite frequencies', `${table.inverseFrequencies[wrong]} for pair ${wrong}`)
  // It multiplies cosines that are f32.
  if (table.attentionFactor >= 0 && Math.fround(table.attentionFactor) < Number.POSITIVE_INFINITY) return table
  throw invalid('parameters with a finite attention factor', `${table.attentionFactor}`)
}
