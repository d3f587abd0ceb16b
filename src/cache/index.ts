/** `kvasir/cache`: KV caches without a model. */
export type * from './contract.ts'
export { type LinearAttentionOptions, linearKvCacheAttention } from './linear-attention.ts'
export { LinearKVCache, type LinearKVCacheOptions, type LinearUpdate } from './linear-kv-cache.ts'
