/** Loaded models: forward passes, generation, tokenizers, sampling. */
export type * from './contract.ts'
export { downloadModel } from './hub/download-model.ts'
export { type CacheFileReport, inspectCacheFile, type SavedCacheReport } from './inspect-cache-file.ts'
export { loadModel } from './open-model.ts'
