/** Kvasir: language models whose KV cache does not grow. */

export * from './attention/index.ts'
export {
  type CacheInfo,
  type CacheOptions,
  type CacheShape,
  type KvCache,
  type LayerShape,
  type LinearAttentionOptions,
  LinearKVCache,
  type LinearKVCacheOptions,
  linearKvCacheAttention,
} from './cache/index.ts'
export * from './runtime/index.ts'
export { isKvasirError, KvasirError, type KvasirErrorCode } from './tensor/error.ts'
