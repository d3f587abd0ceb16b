/** `kvasir/attention`: attention over tensors, without a model. */
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
