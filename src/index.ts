/** Kvasir: language models whose KV cache does not grow. */

export * from './runtime/index.ts'
export { isKvasirError, KvasirError, type KvasirErrorCode } from './tensor/error.ts'
