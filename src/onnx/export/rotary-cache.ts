/** cos and sin of every position, as tensors of an exported graph. */
import { fillRotaryTable, type RotaryEncoding } from '../../positions/index.ts'
import { KvasirError } from '../../tensor/error.ts'
import type { GraphWriter } from './graph-writer.ts'
import { type FloatType, planNumbers } from './weight-plan.ts'

export interface RotaryCache {
  readonly cos: string
  readonly sin: string
}

export interface RotaryCacheOptions {
  readonly type: FloatType
  /** Rows: positions that the model can reach. */
  readonly maxPositions: number
  readonly headDim: number
}

/**
 * Adds the tables of an encoding, `[maxPositions, R]` each.
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
  if (maxPositions > fixedUpTo) {
    throw refuse(
      `one table of rotations up to position ${maxPositions}`,
      `another beyond ${fixedUpTo} (${encoding.name})`,
    )
  }
  const dims = [maxPositions, pairs]
  const table = (part: 'cos' | 'sin') => (): Float32Array => {
    const size = maxPositions * pairs
    const tables = { cos: new Float32Array(size), sin: new Float32Array(size) }
    const positions = Float64Array.from({ length: maxPositions }, (_, position) => position)
    fillRotaryTable(encoding.at(maxPositions), positions, tables.cos, tables.sin)
    return tables[part]
  }
  return {
    cos: graph.weight(planNumbers(`cos_cache${name}`, dims, type, table('cos'))),
    sin: graph.weight(planNumbers(`sin_cache${name}`, dims, type, table('sin'))),
  }
}

function refuse(expected: string, got: string): KvasirError {
  return new KvasirError('unsupported', 'onnx', `GroupQueryAttention needs ${expected}, got ${got}`)
}
