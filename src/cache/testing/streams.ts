/** Random streams of tokens for tests of the linear cache, and what every query of one sees by definition. */
import { Tensor } from 'onnxruntime-common'
import { expect } from 'vitest'
import { dynamicMaskAttention } from '../../attention/dynamic-mask.ts'
import { createRandom, normal } from '../../kernels/cases.ts'
import type { Kernels } from '../../kernels/index.ts'
import { f16ToF32, f32ToF16 } from '../../tensor/float16.ts'
import { LinearKVCache, type LinearKVCacheOptions } from '../linear-kv-cache.ts'

export const tensor = (data: Float32Array, dims: number[]): Tensor => new Tensor('float32', data, dims)

/** The most that any two backends' f32 results may differ: outputs are weighted means of values of size about 1. */
const tolerance = 2e-5

export type Importance = 'normal' | 'ties' | 'equal' | 'masked' | 'huge'

/** Scores of one stream: plain, with ties, all equal, with masked tokens, or so large that one key takes all. */
function importances(kind: Importance, random: () => number, length: number): Float32Array {
  const scores = normal(random, length)
  if (kind === 'ties') return scores.map((score) => Math.round(score))
  if (kind === 'equal') return scores.fill(0.25)
  if (kind === 'masked') return scores.map((score) => (random() < 0.3 ? Number.NEGATIVE_INFINITY : score))
  return kind === 'huge' ? scores.map((score) => score * 200) : scores
}

export interface Stream {
  readonly numTokens: number
  readonly numHeads: number
  readonly numKvHeads: number
  readonly headDim: number
  readonly query: Float32Array
  readonly key: Float32Array
  readonly value: Float32Array
  readonly importance: Float32Array
}

export function createStream(seed: number, numTokens: number, kind: Importance, dtype: 'f32' | 'f16'): Stream {
  const random = createRandom(seed)
  const numKvHeads = 1 + (seed % 3)
  const numHeads = numKvHeads * (1 + (seed % 4))
  const headDim = [8, 5, 16][seed % 3] as number
  const stored = (length: number) => {
    const values = normal(random, length)
    return dtype === 'f16' ? values.map((value) => f16ToF32(f32ToF16(value))) : values
  }
  return {
    ...{ numTokens, numHeads, numKvHeads, headDim },
    query: normal(random, numTokens * numHeads * headDim),
    key: stored(numTokens * numKvHeads * headDim),
    value: stored(numTokens * numKvHeads * headDim),
    importance: importances(kind, random, numTokens * numKvHeads),
  }
}

/** Tokens [from, to) of a stream. */
export function slice(stream: Stream, from: number, to: number) {
  const part = (array: Float32Array, size: number) => array.slice(from * size, to * size)
  const { numHeads: H, numKvHeads: K, headDim: D } = stream
  return {
    numTokens: to - from,
    query: part(stream.query, H * D),
    key: part(stream.key, K * D),
    value: part(stream.value, K * D),
    importance: part(stream.importance, K),
  }
}

export function createCache(
  stream: Stream,
  keepWindowSize: number,
  options: Partial<LinearKVCacheOptions> = {},
): LinearKVCache {
  const { numHeads, numKvHeads, headDim } = stream
  return new LinearKVCache({ numHeads, numKvHeads, headDim, keepWindowSize, ...options })
}

/** What every query sees by definition: the whole history ranked anew. */
export async function definition(
  stream: Stream,
  keepWindowSize: number,
  kernels: Kernels,
  addBias = true,
): Promise<Float32Array> {
  const { numTokens: T, numHeads: H, numKvHeads: K, headDim: D } = stream
  const bias = new Float32Array(K * T)
  for (let i = 0; i < K * T; i++) bias[i] = stream.importance[(i % T) * K + Math.floor(i / T)] as number
  const output = await dynamicMaskAttention(
    ...([
      tensor(stream.query, [1, T, H, D]),
      tensor(stream.key, [1, T, K, D]),
      tensor(stream.value, [1, T, K, D]),
    ] as const),
    tensor(bias, [1, K, 1, T]),
    { keepWindowSize, kernels, addBias },
  )
  return output.data as Float32Array
}

export function expectClose(actual: Float32Array, expected: Float32Array): void {
  const worst = actual.reduce((most, value, i) => {
    const difference = Math.abs(value - (expected[i] as number))
    return difference <= most ? most : Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference
  }, 0)
  expect(worst).toBeLessThanOrEqual(tolerance)
}
