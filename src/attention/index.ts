/** `kvasir/attention`: attention over tensors, without a model. */
export { type DynamicMaskOptions, dynamicMaskAttention } from './dynamic-mask.ts'
