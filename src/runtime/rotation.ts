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

/** Tokens up to which the rotation of a token is the same in every text. */
export function fixedLength(source: RotarySource): number {
  if ('rows' in source) return source.beyond?.length ?? Number.POSITIVE_INFINITY
  return source.fixedUpTo
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

function hasNumbers(encoded: RotaryTable, table: GraphTable): boolean {
  const { pairs, rows } = table
  const reached = { cos: new Float64Array(pairs).fill(1), sin: new Float64Array(pairs) }
  for (let row = 0; row < rows; row += blockRows) {
    const end = Math.min(row + blockRows, rows)
    for (let i = 0; i < pairs; i++) if (!hasColumn(encoded, table, { i, row, end }, reached)) return false
  }
  return true
}

/** Rows that stay in the processor's nearest cache while their columns are compared. */
const blockRows = 128

/**
 * Compares rows of column i. Each row's cosine and sine come from the row before: rounding adds up to 1e-10 in a
 * million rows.
 * @param reached of each column: cosine and sine of the row to begin with, then of the row after the last
 */
function hasColumn(
  { inverseFrequencies, attentionFactor }: RotaryTable,
  table: GraphTable,
  { i, row: first, end }: { i: number; row: number; end: number },
  reached: { readonly cos: Float64Array; readonly sin: Float64Array },
): boolean {
  const { pairs, cos, sin } = table
  const most = table.isHalf ? tolerance.half : tolerance.single
  const isNear = (at: number, cosine: number, sine: number): boolean =>
    Math.abs(cosine * attentionFactor - cos[at]!) <= most && Math.abs(sine * attentionFactor - sin[at]!) <= most
  const frequency = inverseFrequencies[i]!
  const [stepCos, stepSin] = [Math.cos(frequency), Math.sin(frequency)]
  let [cosine, sine] = [reached.cos[i]!, reached.sin[i]!]
  for (let row = first, at = first * pairs + i; row < end; row++, at += pairs) {
    if (!isNear(at, cosine, sine)) {
      const angle = Math.fround(row * Math.fround(frequency))
      if (!isNear(at, Math.cos(angle), Math.sin(angle))) return false
    }
    const turned = cosine * stepCos - sine * stepSin
    sine = sine * stepCos + cosine * stepSin
    cosine = turned
  }
  reached.cos[i] = cosine
  reached.sin[i] = sine
  return true
}
