/** The cosines and sines of one step, from a position encoding or from the tables of a published graph. */
import type { LayerRotary } from '../cache/contract.ts'
import type { GraphTable } from '../onnx/index.ts'
import { fillRotaryTable, type RotaryEncoding, type RotaryTable } from '../positions/index.ts'
import { KvasirError } from '../tensor/error.ts'

/** What an attention's queries and keys are turned by. */
export type RotarySource = RotaryEncoding | GraphTable

export function isInterleaved(source: RotarySource): boolean {
  return 'rows' in source ? source.isInterleaved : source.pairing === 'interleaved'
}

/**
 * Writes the rows of tokens `first`, `first + 1`, ... of a sequence, as many as fit.
 * @param length of the sequence with the whole text that these tokens are a part of: some tables depend on it, never on
 * what else is in the batch
 * @param cos out `[T, R]`
 * @param sin out `[T, R]`
 * @throws KvasirError `unsupported` for positions beyond the end of a table
 */
export function fillRotation(
  source: RotarySource,
  first: number,
  length: number,
  cos: Float32Array,
  sin: Float32Array,
): void {
  const { pairs } = source
  const count = cos.length / pairs
  if ('rows' in source) {
    const { beyond } = source
    if (beyond && length > beyond.length) {
      fillRotation(beyond.table, first, length, cos, sin)
      return
    }
    if (first + count > source.rows) {
      const got = `position ${first + count - 1}`
      const reason = 'the model has tables for no more, and config.json has no frequencies that agree with them'
      throw new KvasirError('unsupported', 'runtime', `expected positions below ${source.rows}, got ${got}: ${reason}`)
    }
    const rows = (table: Float32Array): Float32Array => table.subarray(first * pairs, (first + count) * pairs)
    cos.set(rows(source.cos))
    sin.set(rows(source.sin))
    return
  }
  const positions = Float64Array.from({ length: count }, (_, i) => first + i)
  fillRotaryTable(source.at(length), positions, cos, sin)
}

/** The same for caches that rotate queries and keys themselves, at any positions. */
export function layerRotary(source: RotarySource): LayerRotary {
  const { pairs } = source
  return {
    pairs,
    isInterleaved: isInterleaved(source),
    fill(positions, length, cos, sin) {
      if (!('rows' in source)) {
        fillRotaryTable(source.at(length), positions, cos, sin)
        return
      }
      for (let t = 0; t < positions.length; t++) {
        const row = (numbers: Float32Array): Float32Array => numbers.subarray(t * pairs, (t + 1) * pairs)
        fillRotation(source, positions[t] as number, length, row(cos), row(sin))
      }
    },
  }
}

/** Most that a number of a table may differ from what an encoding gives: rounding to 32 or 16 bits. */
const tolerance = { single: 1e-4, half: 1e-3 }

/**
 * Whether an encoding has the numbers of a table. Exporters compute angles in f32, which are wrong by up to 1e-2 at
 * far positions; a table that was made so agrees too.
 */
export function agrees(encoding: RotaryEncoding, table: GraphTable): boolean {
  const { beyond } = table
  if (encoding.pairs !== table.pairs || (encoding.pairing === 'interleaved') !== table.isInterleaved) return false
  if (encoding.fixedUpTo !== (beyond?.length ?? Number.POSITIVE_INFINITY)) return false
  if (beyond && !hasNumbers(encoding.at(beyond.length + 1), beyond.table)) return false
  return hasNumbers(encoding.at(1), table)
}

function hasNumbers({ inverseFrequencies, attentionFactor }: RotaryTable, table: GraphTable): boolean {
  const { pairs, rows, cos, sin } = table
  const most = table.isHalf ? tolerance.half : tolerance.single
  const isNear = (row: number, i: number, angle: number): boolean =>
    Math.abs(Math.cos(angle) * attentionFactor - cos[row * pairs + i]!) <= most &&
    Math.abs(Math.sin(angle) * attentionFactor - sin[row * pairs + i]!) <= most
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < pairs; i++) {
      const frequency = inverseFrequencies[i] as number
      if (isNear(row, i, row * frequency)) continue
      if (!isNear(row, i, Math.fround(row * Math.fround(frequency)))) return false
    }
  }
  return true
}
