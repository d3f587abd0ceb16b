/** Layers, tokens and comparisons for tests of tokens that come back. */

import type { CacheOptions, CacheShape, KvCache, LayerInput } from '../../cache/contract.ts'
import type { SequenceCache } from '../../cache/sequence-cache.ts'
import { smallRotary as rotary, smallLayer } from '../../cache/testing/small-layer.ts'
import { createRandom, normal } from '../../kernels/cases.ts'
import { type Kernels, openKernels } from '../../kernels/index.ts'
import { rotateVectors } from '../../positions/index.ts'
import { createKvCache } from '../index.ts'

const { numHeads: H, numKvHeads: K, headDim: D, valueDim: E } = smallLayer

export function shape(hasImportance = false, rest = {}): CacheShape {
  return { numLayers: 1, layers: [{ ...smallLayer, ...rest }], hasImportance }
}

const usual = openKernels({ threads: 1 })

export function create(options: CacheOptions, of = shape(), kernels: Kernels = usual): SequenceCache {
  return createKvCache(kernels, of, options) as SequenceCache
}

export function tokens(random: () => number, numTokens: number): LayerInput {
  return {
    ...{ numTokens, query: normal(random, numTokens * H * D), key: normal(random, numTokens * K * D) },
    value: normal(random, numTokens * K * E),
    importance: normal(random, numTokens * K).map((score) => (random() < 0.1 ? Number.NEGATIVE_INFINITY : score)),
  }
}

/** Caches that rotate by themselves do; for the others the tokens are rotated as a model does it. */
export function attend(cache: KvCache, input: LayerInput): Float32Array {
  const { numTokens } = input
  const output = new Float32Array(numTokens * H * E)
  if (cache.layer(0).rotates) cache.layer(0).attend({ ...input, rotary }, output)
  else {
    const [query, key] = [input.query.slice(), input.key.slice()]
    const positions = Array.from({ length: numTokens }, (_, t) => cache.seenTokens + t)
    const [cos, sin] = [new Float32Array(numTokens * rotary.pairs), new Float32Array(numTokens * rotary.pairs)]
    rotary.fill(positions, numTokens, cos, sin)
    rotateVectors(query, { cos, sin, numTokens, numHeads: H, headDim: D })
    rotateVectors(key, { cos, sin, numTokens, numHeads: K, headDim: D })
    cache.layer(0).attend({ ...input, query, key }, output)
  }
  return output
}

export function feed(cache: KvCache, chunks: readonly number[], seed = 1): Float32Array[] {
  const random = createRandom(seed)
  return chunks.map((size) => attend(cache, tokens(random, size)))
}

export function furthest(a: Float32Array, b: Float32Array): number {
  return Math.max(...a.map((value, i) => Math.abs(value - (b[i] as number))))
}

export function isSame(a: readonly (Float32Array | Uint8Array)[], b: typeof a): boolean {
  const bytes = (all: typeof a) =>
    Buffer.concat(all.map((one) => Buffer.from(one.buffer, one.byteOffset, one.byteLength)))
  return bytes(a).equals(bytes(b))
}
