/** `kvasir/cache`: KV caches without a model. */
export type * from './contract.ts'
export { type LinearAttentionOptions, linearKvCacheAttention } from './linear-attention.ts'
export { LinearKVCache, type LinearKVCacheOptions, type LinearUpdate } from './linear-kv-cache.ts'
export type { Blob, DiskOptions, RamOptions, RedisOptions, TierName, TierOptions, TierStats } from './tiers/contract.ts'
export { openTiers, readTier } from './tiers/open-tiers.ts'
export type { TieredStore } from './tiers/tiered-store.ts'
