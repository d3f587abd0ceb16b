/** Rotation of the queries and keys of a step: cosines and sines of its positions, and who is turned by them. */
import type { Kernels } from '../kernels/contract.ts'
import type { Step } from './batch.ts'
import type { BufferPool } from './buffer-pool.ts'
import { fillRotation, isInterleaved, type RotarySource } from './rotation.ts'

export interface Rotation {
  /** `[T, R]` */
  readonly cos: Float32Array
  /** `[T, R]` */
  readonly sin: Float32Array
  readonly rotaryPairs: number
  readonly isInterleaved: boolean
}

interface Heads {
  /** `[T, heads, D]` */
  readonly vectors: Float32Array
  readonly numHeads: number
  readonly headDim: number
}

/** cos and sin of every token's position, the number of tokens its sequence had before; memory is the pool's. */
export function stepRotations(
  sources: readonly (RotarySource | undefined)[],
  step: Step,
  pool: BufferPool,
): (Rotation | undefined)[] {
  const known = new Map<RotarySource, Rotation>()
  return sources.map((source) => {
    const rotation = source && (known.get(source) ?? tableOf(source, step, pool))
    if (source && rotation) known.set(source, rotation)
    return rotation
  })
}

function tableOf(source: RotarySource, { tokens, slices }: Step, pool: BufferPool): Rotation {
  const { pairs } = source
  const size = tokens.length * pairs
  const [cos, sin] = [pool.take(size), pool.take(size)]
  for (const { cache, start, end, length } of slices) {
    const rows = (data: Float32Array): Float32Array => data.subarray(start * pairs, end * pairs)
    fillRotation(source, cache.seenTokens, length, rows(cos), rows(sin))
  }
  return { cos, sin, rotaryPairs: pairs, isInterleaved: isInterleaved(source) }
}

/** Rotates the tokens of all sequences but those whose caches do it themselves, in place. */
export function rotateHeads(
  kernels: Kernels,
  { tokens, slices }: Step,
  cacheIndex: number,
  rotation: Rotation,
  heads: Heads,
): void {
  if (slices.every(({ cache }) => !cache.layer(cacheIndex).rotates)) {
    kernels.rotate({ ...rotation, ...heads, numTokens: tokens.length })
    return
  }
  for (const { cache, start, end } of slices) {
    if (cache.layer(cacheIndex).rotates) continue
    const rows = (data: Float32Array, size: number): Float32Array => data.subarray(start * size, end * size)
    const { cos, sin, rotaryPairs } = rotation
    const table = { ...rotation, cos: rows(cos, rotaryPairs), sin: rows(sin, rotaryPairs) }
    const vectors = rows(heads.vectors, heads.numHeads * heads.headDim)
    kernels.rotate({ ...table, ...heads, vectors, numTokens: end - start })
  }
}
