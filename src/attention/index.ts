/** `kvasir/attention`: attention over tensors, without a model. */

// The tensors of all functions here, so that callers need not find the same version by themselves.
export { Tensor } from 'onnxruntime-common'
export { type AttentionOptions, attention, type Lifetimes } from './attention.ts'
export type { AttentionState } from './core.ts'
export {
  type AttentionFlops,
  type AttentionFlopsOptions,
  type AttentionPairsOptions,
  type AttentionWork,
  attentionFlops,
  attentionPairs,
  type Work,
} from './counting.ts'
export {
  type AttentionBytes,
  type AttentionBytesOptions,
  attentionBytes,
  type CountedKvDtype,
  countedKvDtypes,
  type KvCacheBytes,
  type KvCacheBytesOptions,
  kvCacheBytes,
} from './counting-bytes.ts'
export { type DynamicMaskOptions, dynamicMaskAttention } from './dynamic-mask.ts'
export { flashAttention } from './flash-attention.ts'
export { type FlashKVCacheOptions, flashAttentionWithKVCache } from './flash-kv-cache.ts'
export type { FlashOptions } from './flash-options.ts'
export { flashAttentionKvPacked, flashAttentionQkvPacked } from './flash-packed.ts'
export { type FlashVarlenOptions, flashAttentionVarlen } from './flash-varlen.ts'
export {
  type FlashVarlenKvOptions,
  type FlashVarlenQkvOptions,
  flashAttentionVarlenKvPacked,
  flashAttentionVarlenQkvPacked,
} from './flash-varlen-packed.ts'
export type { FloatList, IntegerList } from './lists.ts'
export { type MergeOptions, mergeAttentionStates } from './merge-states.ts'
export type { RunOptions, SinkOptions, Window } from './options.ts'
export { type ScaledDotProductOptions, scaledDotProductAttention } from './scaled-dot-product.ts'
