/** cos and sin of every position, as tensors of an exported graph. */
import { fillRotaryTable, type RotaryEncoding, type RotaryTable } from '../../positions/index.ts'
import { KvasirError } from '../../tensor/error.ts'
import type { GraphWriter } from './graph-writer.ts'
import { type FloatType, planNumbers } from './weight-plan.ts'

export interface RotaryCache {
  readonly cos: string
  readonly sin: string
  /** Sequences longer than this use rows from this one on: they hold a second table for all positions. */
  readonly switchAt?: number
}

export interface RotaryCacheOptions {
  readonly type: FloatType
  /** Rows: positions that the model can reach. */
  readonly maxPositions: number
  readonly headDim: number
}

/**
 * Adds the tables of an encoding, `[maxPositions, R]` each, or two of them one after the other (LongRoPE).
 * @throws KvasirError `unsupported` for what GroupQueryAttention can't rotate
 */
export function addRotaryCache(
  graph: GraphWriter,
  name: string,
  encoding: RotaryEncoding,
  options: RotaryCacheOptions,
): RotaryCache {
  const { pairs, fixedUpTo, pairing } = encoding
  const { type, maxPositions, headDim } = options
  if (pairing !== 'half') throw refuse('pairs of components half a head apart', pairing)
  if (headDim % 16 || pairs % 8) {
    throw refuse('a head dim and a rotary width in multiples of 16', `${headDim} and ${2 * pairs}`)
  }
  const isOneTable = maxPositions <= fixedUpTo
  if (!isOneTable && !isSame(encoding.at(fixedUpTo + 1), encoding.at(maxPositions))) {
    throw refuse('at most two tables of rotations', `one for each length beyond ${fixedUpTo} (${encoding.name})`)
  }
  const parts = isOneTable
    ? [{ table: encoding.at(maxPositions), rows: maxPositions }]
    : [
        { table: encoding.at(fixedUpTo), rows: fixedUpTo },
        { table: encoding.at(maxPositions), rows: maxPositions },
      ]
  const dims = [parts.reduce((sum, { rows }) => sum + rows, 0), pairs]
  const make = (part: 'cos' | 'sin') => () => tablesOf(parts, pairs)[part]
  return {
    cos: graph.weight(planNumbers(`cos_cache${name}`, dims, type, make('cos'))),
    sin: graph.weight(planNumbers(`sin_cache${name}`, dims, type, make('sin'))),
    ...(!isOneTable && { switchAt: fixedUpTo }),
  }
}

interface Part {
  readonly table: RotaryTable
  readonly rows: number
}

/** cos and sin, one table after the other; each begins at position 0. */
function tablesOf(parts: readonly Part[], pairs: number): { cos: Float32Array; sin: Float32Array } {
  const size = pairs * parts.reduce((sum, { rows }) => sum + rows, 0)
  const tables = { cos: new Float32Array(size), sin: new Float32Array(size) }
  let at = 0
  for (const { table, rows } of parts) {
    const positions = Float64Array.from({ length: rows }, (_, position) => position)
    const end = at + rows * pairs
    fillRotaryTable(table, positions, tables.cos.subarray(at, end), tables.sin.subarray(at, end))
    at = end
  }
  return tables
}

function isSame(a: RotaryTable, b: RotaryTable): boolean {
  return (
    a.attentionFactor === b.attentionFactor &&
    a.inverseFrequencies.every((frequency, i) => frequency === b.inverseFrequencies[i])
  )
}

function refuse(expected: string, got: string): KvasirError {
  return new KvasirError('unsupported', 'onnx', `GroupQueryAttention needs ${expected}, got ${got}`)
}
