/** Cosines and sines of rotary positions, and of moves between them. */
import { describe } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import { checkFloat32, checkPositions } from './check-arrays.ts'
import type { RotaryEncoding, RotaryTable } from './contract.ts'
import type { RotationTable } from './rotate.ts'

/**
 * Writes cos and sin of position * inverse frequency, in f64 up to the last rounding to f32: at position 2^31 an angle
 * in f32 would be wrong by 128 radians, in f64 it is right to 5e-7.
 * @param table `encoding.at(length)`, for tokens of one sequence or, where length doesn't matter, of several
 * @param cos out `[T, R]`
 * @param sin out `[T, R]`
 * @throws KvasirError `invalid-argument` for arrays that are too short or of another type, and positions that are not
 * finite; nothing is written then
 */
export function fillRotaryTable(
  table: RotaryTable,
  positions: ArrayLike<number>,
  cos: Float32Array,
  sin: Float32Array,
): void {
  if (!(table?.inverseFrequencies instanceof Float64Array)) {
    throw invalidArgument('positions', `expected a table, as encoding.at(length) gives it, got ${describe(table)}`)
  }
  const { inverseFrequencies, attentionFactor } = table
  const pairs = inverseFrequencies.length
  checkPositions('positions', positions)
  for (const [name, array] of Object.entries({ cos, sin })) {
    checkFloat32(name, array)
    const { length } = array
    if (length >= positions.length * pairs) continue
    const expected = `at least ${positions.length * pairs} numbers in ${name}, ${pairs} for each position`
    throw invalidArgument('positions', `expected ${expected}, got ${length}`)
  }
  for (let t = 0; t < positions.length; t++) {
    for (let i = 0; i < pairs; i++) {
      const angle = (positions[t] as number) * (inverseFrequencies[i] as number)
      cos[t * pairs + i] = Math.cos(angle) * attentionFactor
      sin[t * pairs + i] = Math.sin(angle) * attentionFactor
    }
  }
}

/**
 * What turns keys that were rotated at positions `from` into what they would be at positions `to`: rotation by
 * (to - from) * inverse frequency. The attention factor is in the keys already, so there is none here, but for a change
 * between tables whose factors differ.
 * @param from `[T]`
 * @param to `[T]`
 * @param lengths of the sequence when the keys were rotated, and now; needed where the encoding changes with it, for
 * example to give keys of a short text the table of a long one without moving them
 * @returns cos and sin, `[T, R]`
 * @throws KvasirError `invalid-argument` for lists of different lengths, positions that are not finite, lengths that are
 * missing, keys that an attention factor of 0 has wiped out
 */
export function rerotationTable(
  encoding: RotaryEncoding,
  from: ArrayLike<number>,
  to: ArrayLike<number>,
  lengths?: { readonly from: number; readonly to: number },
): RotationTable {
  checkPositions('from', from)
  checkPositions('to', to)
  if (from.length !== to.length) {
    throw invalidArgument('positions', `expected ${from.length} positions in to, got ${to.length}`)
  }
  if (lengths === undefined && encoding.fixedUpTo < Number.POSITIVE_INFINITY) {
    throw invalidArgument('positions', `expected lengths for rope_type "${encoding.name}", got undefined`)
  }
  const [before, after] = [encoding.at(lengths?.from ?? 0), encoding.at(lengths?.to ?? 0)]
  const factor = before === after ? 1 : after.attentionFactor / before.attentionFactor
  if (!Number.isFinite(factor)) {
    throw invalidArgument('positions', `expected keys with an attention factor above 0, got ${before.attentionFactor}`)
  }
  const { pairs } = encoding
  const [cos, sin] = [new Float32Array(from.length * pairs), new Float32Array(from.length * pairs)]
  for (let t = 0; t < from.length; t++) {
    for (let i = 0; i < pairs; i++) {
      const [old, next] = [before.inverseFrequencies[i] as number, after.inverseFrequencies[i] as number]
      const angle = before === after ? (to[t]! - from[t]!) * next : to[t]! * next - from[t]! * old
      cos[t * pairs + i] = Math.cos(angle) * factor
      sin[t * pairs + i] = Math.sin(angle) * factor
    }
  }
  return { cos, sin }
}
