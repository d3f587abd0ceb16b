/** Small caches for tests of saved states: a shape, every kind of policy, and random tokens to feed them. */
import { createRandom, normal } from '../../../kernels/cases.ts'
import type { CacheOptions, CacheShape, KvCache } from '../../contract.ts'
import { smallRotary as rotary, smallLayer } from '../../testing/small-layer.ts'

const { numHeads: H, numKvHeads: K, headDim: D, valueDim: E } = smallLayer
/** The second layer looks back on few tokens, whatever the policy. */
export const shape: CacheShape = {
  numLayers: 2,
  layers: [smallLayer, { ...smallLayer, window: 5 }],
  hasImportance: true,
}

const window = 12
export const choices: readonly CacheOptions[] = [
  { policy: 'full' },
  { policy: 'full', window },
  { policy: 'window', window },
  { policy: 'streaming', window },
  { policy: 'linear', window },
  { policy: 'linear', window, sinks: 2, recent: 3 },
  { policy: 'linear', window, importance: 'value-norm', evictionLog: 0 },
  { policy: 'random', window, seed: 3 },
  { policy: 'h2o', window },
  { policy: 'tova', window },
  { policy: 'snapkv', window, interval: 3 },
  { policy: 'keydiff', window, sinks: 1 },
  { policy: 'lagkv', window: 20 },
  { policy: 'expected-attention', window },
  { policy: 'adakv', window },
  { policy: 'pyramidkv(adakv(linear))', window, evictionLog: 7 },
  { policy: 'snapkv', window, leastWindow: 5, keepMass: 0.6 },
]

/** Feeds random tokens, in chunks of these sizes, and returns everything that they saw. */
export function feed(cache: KvCache, chunks: readonly number[], seed: number): Float32Array[] {
  const random = createRandom(seed)
  return chunks.flatMap((numTokens) => {
    const outputs = Array.from({ length: cache.numLayers }, (_, index) => {
      const own = cache.layer(index)
      const output = new Float32Array(numTokens * H * E)
      const importance = normal(random, numTokens * K)
      const scores = importance.map((score) => (random() < 0.1 ? Number.NEGATIVE_INFINITY : score))
      const vectors = { query: normal(random, numTokens * H * D), key: normal(random, numTokens * K * D) }
      const rest = { value: normal(random, numTokens * K * E), importance: scores, ...(own.rotates && { rotary }) }
      own.attend({ numTokens, ...vectors, ...rest }, output)
      return output
    })
    const tokens = Array.from({ length: numTokens }, () => Math.floor(random() * 1000))
    cache.noteTokens?.(tokens)
    return outputs
  })
}

/** Feeds tokens whose vectors follow from token, position and layer alone, as a chunk. */
export function feedTokens(cache: KvCache, tokens: readonly number[], first: number, isNoted = true): Float32Array[] {
  const numTokens = tokens.length
  const outputs = Array.from({ length: cache.numLayers }, (_, index) => {
    const own = cache.layer(index)
    const numbers = (size: number, kind: number): Float32Array =>
      Float32Array.from(
        tokens.flatMap((token, t) => {
          return [...normal(createRandom(((token * 1009 + first + t) * 31 + index) * 7 + kind), size)]
        }),
      )
    const output = new Float32Array(numTokens * H * E)
    const vectors = { query: numbers(H * D, 0), key: numbers(K * D, 1), value: numbers(K * E, 2) }
    own.attend({ numTokens, ...vectors, importance: numbers(K, 3), ...(own.rotates && { rotary }) }, output)
    return output
  })
  if (isNoted) cache.noteTokens?.(tokens)
  return outputs
}
