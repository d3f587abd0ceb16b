/**
 * Bytes of a KV cache and bytes that a decode step reads, counted. Formulas only, exact integers.
 *
 * L layers, B sequences, K KV heads, D dim of a key, E dim of a value, N tokens, n = min(N, W) tokens kept, row(d) the
 * bytes of a stored vector of d numbers, R newest tokens that are left in f16 besides:
 *
 *     bytes a token   L K (row(D) + row(E) + 4 if the model has an importance)
 *     cache           B (n (bytes a token) + min(n, R) L K 2 (D + E)), with windows by layer the sum over layers
 *     step            cache + 4 B L H (D + E): queries in, outputs out, both f32
 */
import { rowBytes, type StorageType, storageTypes } from '../kernels/index.ts'
import { checkChoice, checkInteger, checkKeys, describe } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import { isQuantized } from '../tensor/quantized-row.ts'
import { exactProduct, exactSum } from './counting.ts'

/** Newest tokens that are left in f16 where the user does not say: what 8-bit floats and int4 need, and int8 does not. */
export function usualResidual(...types: readonly StorageType[]): number {
  return types.some((type) => isQuantized(type) && type !== 'int8') ? 128 : 0
}

/** Of a window of W, `residual` of the user's; else at most a quarter, since more would soon take what f16 takes. */
export function residualWithin(window: number, residual: number, isUsual: boolean): number {
  return Math.min(residual, isUsual ? Math.ceil(window / 4) : window)
}

/** Storage types that bytes are counted for: all there are. */
export type CountedKvDtype = StorageType

export const countedKvDtypes: readonly StorageType[] = storageTypes

export interface KvCacheBytesOptions {
  /** L */
  readonly numLayers: number
  /** K: KV heads. As many as query heads is MHA, fewer GQA, one MQA. */
  readonly numKvHeads: number
  /** D */
  readonly headDim: number
  /** E (default D). */
  readonly valueDim?: number
  /** N: tokens of each sequence. */
  readonly numTokens: number
  /** Storage of K and V (default f32). */
  readonly dtype?: StorageType
  /** R: newest tokens that are stored in f16 besides, at most W (default 128 with fp8 and int4, at most W / 4; else 0). */
  readonly residual?: number
  /** W: tokens kept for each KV head, in every layer (default: all). */
  readonly window?: number
  /** A window of its own for each of the L layers, null where there is none; the smaller one holds beside `window`. */
  readonly layerWindows?: readonly (number | null)[]
  /** B: sequences (default 1). */
  readonly batch?: number
  /** Whether the model computes an importance, which is kept in f32 for each token and KV head (default false). */
  readonly hasImportance?: boolean
}

export interface KvCacheBytes {
  /** Of one token of one sequence, in all layers. */
  readonly bytesPerToken: number
  /** Of all sequences, with what the windows keep. */
  readonly bytes: number
  /** The same when all tokens stay. */
  readonly fullBytes: number
}

export interface AttentionBytesOptions extends KvCacheBytesOptions {
  /** H: query heads. */
  readonly numHeads: number
}

export interface AttentionBytes {
  /** K, V, their scales and the importance of the tokens kept. */
  readonly cache: number
  /** `[B, H, D]` f32 of all layers. */
  readonly queries: number
  /** `[B, H, E]` f32 of all layers, written. */
  readonly outputs: number
  readonly total: number
}

const cacheKeys = [
  ...['numLayers', 'numKvHeads', 'headDim', 'valueDim', 'numTokens', 'dtype', 'window', 'layerWindows', 'batch'],
  ...['residual', 'hasImportance'],
]

/**
 * Bytes of K and V (and of the importance) of a cache.
 *
 * Llama-3.1-8B (L = 32, K = 8, D = E = 128) in f16: 32 x 8 x (256 + 256) = 131,072 bytes a token, 128 KiB.
 * @throws KvasirError `invalid-argument`: no integers, unknown options or dtype, K and V of 2^53 bytes or more
 */
export function kvCacheBytes(options: KvCacheBytesOptions): KvCacheBytes {
  checkKeys('attention', 'kvCacheBytes', options, cacheKeys)
  const { numLayers, numKvHeads, headDim, valueDim = headDim, numTokens, dtype = 'f32', batch = 1 } = options
  const { window = numTokens, hasImportance = false } = options
  checkInteger('attention', 'numTokens', numTokens, 0)
  for (const [name, value] of Object.entries({ numLayers, numKvHeads, headDim, valueDim, batch })) {
    checkInteger('attention', name, value, 1)
  }
  checkInteger('attention', 'window', window, options.window === undefined ? 0 : 1)
  checkChoice('attention', 'dtype', dtype, countedKvDtypes)
  const { residual = usualResidual(dtype) } = options
  checkInteger('attention', 'residual', residual, 0)
  if (typeof hasImportance !== 'boolean') {
    throw invalidArgument('attention', `expected true or false for hasImportance, got ${describe(hasImportance)}`)
  }
  const layerWindows = checkLayerWindows(options)
  const vectors = (type: StorageType) => rowBytes(headDim, type) + rowBytes(valueDim, type)
  const layer = exactProduct('bytes', numKvHeads, vectors(dtype) + (hasImportance ? 4 : 0))
  const most = options.window ?? Number.POSITIVE_INFINITY
  const windows = (layerWindows ?? [null]).map((own) => Math.min(most, own ?? most))
  const kept = windows.map((own) => Math.min(numTokens, own))
  const each = layerWindows ? 1 : numLayers
  const rows = exactProduct('rows', each, exactSum('rows', ...kept))
  const copy = numKvHeads * vectors('f16')
  const isUsual = options.residual === undefined
  const recent = windows.map((own) => Math.min(numTokens, residualWithin(own, residual, isUsual)))
  const copies = exactProduct('bytes', each, exactSum('rows', ...recent), copy)
  return {
    bytesPerToken: exactProduct('bytes', numLayers, layer),
    bytes: exactProduct('bytes', batch, exactSum('bytes', exactProduct('bytes', rows, layer), copies)),
    fullBytes: exactSum(
      'bytes',
      exactProduct('bytes', batch, numLayers, numTokens, layer),
      exactProduct('bytes', batch, numLayers, Math.min(numTokens, residualWithin(most, residual, isUsual)), copy),
    ),
  }
}

/**
 * Bytes that the attention of one decode step (one new token a sequence, all layers) must move: the cache is read once,
 * whatever the number of query heads that share a KV head. `numTokens` counts the new token.
 * @throws KvasirError `invalid-argument`: as `kvCacheBytes`; query heads that are no multiple of the KV heads
 */
export function attentionBytes(options: AttentionBytesOptions): AttentionBytes {
  checkKeys('attention', 'attentionBytes', options, [...cacheKeys, 'numHeads'])
  const { numHeads, ...cacheOptions } = options
  checkInteger('attention', 'numHeads', numHeads, 1)
  const cache = kvCacheBytes(cacheOptions).bytes
  const { numLayers, numKvHeads, headDim, valueDim = headDim, batch = 1 } = options
  if (numHeads % numKvHeads) {
    throw invalidArgument('attention', `expected ${numHeads} query heads to be a multiple of ${numKvHeads} KV heads`)
  }
  const queries = exactProduct('bytes', 4, batch, numLayers, numHeads, headDim)
  const outputs = exactProduct('bytes', 4, batch, numLayers, numHeads, valueDim)
  return { cache, queries, outputs, total: exactSum('bytes', cache, queries, outputs) }
}

function checkLayerWindows({ numLayers, layerWindows }: KvCacheBytesOptions): readonly (number | null)[] | undefined {
  if (layerWindows === undefined) return undefined
  if (!Array.isArray(layerWindows) || layerWindows.length !== numLayers) {
    const came = describe(layerWindows)
    throw invalidArgument('attention', `expected ${numLayers} entries for layerWindows, one a layer, got ${came}`)
  }
  for (const [layer, own] of layerWindows.entries()) {
    if (own !== null) checkInteger('attention', `layerWindows[${layer}]`, own, 1)
  }
  return layerWindows
}
