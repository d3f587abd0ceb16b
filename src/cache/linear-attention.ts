/**
 * One step of attention with a linear cache over tensors: append, forget what falls out of the top W, attend.
 */
import type { Tensor } from 'onnxruntime-common'
import { dynamicMaskAttention } from '../attention/dynamic-mask.ts'
import { f32Data, f32Tensor, swapMiddle } from '../attention/tensors.ts'
import type { Kernels } from '../kernels/index.ts'
import { checkInteger, checkKeys } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import { LinearKVCache } from './linear-kv-cache.ts'

export interface LinearAttentionOptions {
  /** The cache so far; absent: a new one. It is updated in place and returned. */
  readonly cache?: LinearKVCache
  /** W of a new cache (default 2048). */
  readonly keepWindowSize?: number
  /** Position of the first token, as a check: it must be the number of tokens that the cache has seen. */
  readonly sequencePosition?: number
  /** Off: attention over exactly these tokens, with no cache used or changed (default on). */
  readonly inferenceMode?: boolean
  /** Of a new cache: whether importance is added to the logits, or only selects (default true). */
  readonly addImportance?: boolean
  /** Factor of q . k of a new cache (default 1 / sqrt(D)). */
  readonly softmaxScale?: number
  readonly kernels?: Kernels
}

/**
 * Takes tokens into a linear cache, a new one unless `cache` is given, and attends to what it keeps.
 * @param query `[B, H, T, D]` f32; T is 1 in decoding
 * @param key `[B, K, T, D]` f32
 * @param value `[B, K, T, D]` f32
 * @param importance `[B, K, T, 1]` f32: ranks the tokens and is added to the logits
 * @returns `output [B, H, T, D]` and the cache
 * @throws KvasirError `invalid-argument`: wrong shapes, NaN importance, a cache of another shape or position, unknown
 * options
 */
export async function linearKvCacheAttention(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  importance: Tensor,
  options: LinearAttentionOptions = {},
): Promise<{ output: Tensor; cache: LinearKVCache | undefined }> {
  checkKeys('attention', 'linearKvCacheAttention', options, [
    ...['cache', 'keepWindowSize', 'sequencePosition', 'inferenceMode', 'addImportance', 'softmaxScale', 'kernels'],
  ])
  f32Data('query', query, [null, null, null, null])
  const [B, H, T, D] = query.dims as [number, number, number, number]
  f32Data('key', key, [B, null, T, D])
  const K = key.dims[1] as number
  if (K === 0 || H % K !== 0)
    throw invalidArgument('attention', `expected ${H} query heads to be a multiple of ${K} KV heads`)
  const tokenMajor = {
    query: swapMiddle(f32Data('query', query, [B, H, T, D]), [B, H, T, D]),
    key: swapMiddle(f32Data('key', key, [B, K, T, D]), [B, K, T, D]),
    value: swapMiddle(f32Data('value', value, [B, K, T, D]), [B, K, T, D]),
  }
  const scores = f32Data('importance', importance, [B, K, T, 1])
  if (options.inferenceMode === false)
    return { output: await standard(tokenMajor, scores, { B, H, K, T, D }, options), cache: options.cache }
  const cache = cacheFor({ B, H, K, D }, options)
  const output = new Float32Array(B * T * H * D)
  cache.update({ ...tokenMajor, importance: swapMiddle(scores, [B, K, T, 1]), numTokens: T }, output)
  return { output: f32Tensor(swapMiddle(output, [B, T, H, D]), [B, H, T, D]), cache }
}

interface Sizes {
  readonly B: number
  readonly H: number
  readonly K: number
  readonly D: number
}

function cacheFor({ B, H, K, D }: Sizes, options: LinearAttentionOptions): LinearKVCache {
  const { cache, keepWindowSize, sequencePosition, addImportance, softmaxScale, kernels } = options
  if (sequencePosition !== undefined) {
    checkInteger('attention', 'sequencePosition', sequencePosition, 0)
    const seen = cache?.getCacheInfo().seenTokens ?? 0
    if (seen !== sequencePosition) {
      throw invalidArgument(
        'attention',
        `expected sequencePosition to be ${seen}, the tokens seen so far, got ${sequencePosition}`,
      )
    }
  }
  const given = Object.entries({ addImportance, softmaxScale, kernels }).find(([, value]) => value !== undefined)
  if (cache && given) throw invalidArgument('attention', `${given[0]} is chosen when a cache is made, and there is one`)
  if (!cache) {
    const sizes = { batchSize: B, numHeads: H, numKvHeads: K, headDim: D }
    return new LinearKVCache({ ...sizes, keepWindowSize, addImportance, softmaxScale, kernels })
  }
  const came = [cache.batchSize, cache.numHeads, cache.numKvHeads, cache.headDim].join(', ')
  if (came !== [B, H, K, D].join(', ')) {
    throw invalidArgument('attention', `expected a cache of [B, H, K, D] = [${B}, ${H}, ${K}, ${D}], got [${came}]`)
  }
  if (keepWindowSize !== undefined && keepWindowSize !== cache.keepWindowSize) {
    throw invalidArgument(
      'attention',
      `expected keepWindowSize ${cache.keepWindowSize}, as in the cache, got ${keepWindowSize}`,
    )
  }
  return cache
}

/** The whole sequence at once, as in training: the dynamic mask, causal. */
async function standard(
  { query, key, value }: { query: Float32Array; key: Float32Array; value: Float32Array },
  importance: Float32Array,
  { B, H, K, T, D }: Sizes & { readonly T: number },
  { keepWindowSize, addImportance, softmaxScale, kernels }: LinearAttentionOptions,
): Promise<Tensor> {
  const output = await dynamicMaskAttention(
    f32Tensor(query, [B, T, H, D]),
    f32Tensor(key, [B, T, K, D]),
    f32Tensor(value, [B, T, K, D]),
    f32Tensor(importance, [B, K, 1, T]),
    { keepWindowSize, addBias: addImportance, softmaxScale, kernels },
  )
  return f32Tensor(swapMiddle(output.data as Float32Array, [B, T, H, D]), [B, H, T, D])
}
