/**
 * The linear cache as an object of its own: for each sequence and KV head, the W most important tokens of everything
 * it was given, at a cost that does not depend on how much that was.
 */
import { checkKernels } from '../kernels/check-kernels.ts'
import { defaultKernels, type Kernels, storageTypes } from '../kernels/index.ts'
import { checkChoice, checkFinite, checkInteger, checkKeys, checkObject } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import { BoundedCache } from './bounded/bounded-cache.ts'
import type { CacheInfo, KvDtype, LayerInput } from './contract.ts'
import { checkImportance } from './layout.ts'
import { boundedTypes, rowTypesOf } from './storage/row-types.ts'

export interface LinearKVCacheOptions {
  /** W: tokens kept for each KV head (default 2048). */
  readonly keepWindowSize?: number
  /** H: query heads. */
  readonly numHeads: number
  /** K: KV heads, a divisor of H (default H). */
  readonly numKvHeads?: number
  /** D */
  readonly headDim: number
  /** B: sequences, all of one length (default 1). */
  readonly batchSize?: number
  /** Storage of K and V (default f32). */
  readonly dtype?: KvDtype
  /** Where attention runs; only the CPU so far. */
  readonly device?: 'cpu'
  /** First tokens that always stay (default 0). */
  readonly sinks?: number
  /** Last tokens that always stay (default 0). */
  readonly recent?: number
  /** Whether importance is added to the logits, or only selects (default true). */
  readonly addImportance?: boolean
  /** Factor of q . k (default 1 / sqrt(D)). */
  readonly softmaxScale?: number
  /** Default: the best backend of this machine. */
  readonly kernels?: Kernels
}

const optionNames = [
  ...['keepWindowSize', 'numHeads', 'numKvHeads', 'headDim', 'batchSize', 'dtype', 'device', 'sinks', 'recent'],
  ...['addImportance', 'softmaxScale', 'kernels'],
]

/** New tokens of all sequences of a batch. */
export interface LinearUpdate extends Omit<LayerInput, 'importance' | 'query'> {
  /** `[B, T, H, D]`; without it nothing is attended to. */
  readonly query?: Float32Array
  /** `[B, T, K]`; -Infinity: the token is never kept. */
  readonly importance: Float32Array
}

/** For each sequence and KV head the `keepWindowSize` most important tokens of everything that it was given. */
export class LinearKVCache {
  readonly keepWindowSize: number
  readonly numHeads: number
  readonly numKvHeads: number
  readonly headDim: number
  readonly batchSize: number
  readonly #sequences: readonly BoundedCache[]
  readonly #ignored: Float32Array

  /** @throws KvasirError `invalid-argument`, naming the option. */
  constructor(options: LinearKVCacheOptions) {
    checkKeys('cache', 'LinearKVCache', options, optionNames)
    const {
      numHeads,
      numKvHeads = numHeads,
      headDim,
      keepWindowSize = 2048,
      batchSize = 1,
      sinks = 0,
      recent = 0,
    } = options
    const { softmaxScale, addImportance = true } = options
    const sizes = { numHeads, numKvHeads, headDim, batchSize }
    for (const [name, value] of Object.entries(sizes)) checkInteger('cache', name, value, 1, 65536)
    checkInteger('cache', 'keepWindowSize', keepWindowSize, 1, 1 << 24)
    checkInteger('cache', 'sinks', sinks, 0, keepWindowSize)
    checkInteger('cache', 'recent', recent, 0, keepWindowSize - sinks)
    if (softmaxScale !== undefined) checkFinite('cache', 'softmaxScale', softmaxScale)
    if (typeof addImportance !== 'boolean') throw invalidArgument('cache', 'expected true or false for addImportance')
    checkChoice('cache', 'dtype', options.dtype ?? 'f32', storageTypes)
    checkChoice('cache', 'device', options.device ?? 'cpu', ['cpu'])
    if (numHeads % numKvHeads !== 0) {
      throw invalidArgument(
        'cache',
        `expected numHeads to be a multiple of numKvHeads, got ${numHeads} and ${numKvHeads}`,
      )
    }
    this.keepWindowSize = keepWindowSize
    this.numHeads = numHeads
    this.numKvHeads = numKvHeads
    this.headDim = headDim
    this.batchSize = batchSize
    if (options.kernels !== undefined) checkKernels('cache', options.kernels)
    const config = {
      kernels: options.kernels ?? defaultKernels(),
      shape: { numHeads, numKvHeads, headDim, valueDim: headDim, scale: softmaxScale },
      ...boundedTypes(rowTypesOf({ kvDtype: options.dtype }), keepWindowSize),
      ...{ window: keepWindowSize, sinks, recent, rankBy: 'importance' as const, addImportance },
    }
    this.#sequences = Array.from({ length: batchSize }, () => new BoundedCache(config, true))
    this.#ignored = new Float32Array(0)
  }

  /**
   * Takes in T tokens and, when there is a query, writes what each sees to `output` `[B, T, H, D]`. Many tokens give
   * what one at a time give. O(T (log W + W D)).
   * @throws KvasirError `invalid-argument`: sizes that don't fit, NaN importance. The cache is unchanged then.
   */
  update(input: LinearUpdate, output: Float32Array = this.#ignored): void {
    checkObject('cache', 'update', input)
    const { numTokens: T, query, key, value, importance } = input
    const { batchSize: B, numHeads: H, numKvHeads: K, headDim: D } = this
    checkInteger('cache', 'numTokens', T, 0)
    checkLength('key', key, B * T * K * D)
    checkLength('value', value, B * T * K * D)
    checkLength('importance', importance, B * T * K)
    if (query !== undefined) checkLength('query', query, B * T * H * D)
    if (query) checkLength('output', output, B * T * H * D)
    checkImportance(importance)
    for (const [b, sequence] of this.#sequences.entries()) {
      const part = (array: Float32Array, size: number) => array.subarray(b * T * size, (b + 1) * T * size)
      const tokens = {
        ...{ key: part(key, K * D), value: part(value, K * D), importance: part(importance, K), numTokens: T },
      }
      if (query) sequence.attend({ ...tokens, query: part(query, H * D) }, part(output, H * D))
      else sequence.append(tokens)
    }
  }

  /** Forgets everything; memory stays. */
  reset(): void {
    for (const sequence of this.#sequences) sequence.reset()
  }

  /** Positions that a KV head still holds, ascending. */
  positions(head: number, sequence = 0): number[] {
    checkInteger('cache', 'head', head, 0, this.numKvHeads - 1)
    checkInteger('cache', 'sequence', sequence, 0, this.batchSize - 1)
    return (this.#sequences[sequence] as BoundedCache).positions(head)
  }

  /** Of the first sequence; bytes are those of all. */
  getCacheInfo(): CacheInfo {
    const info = (this.#sequences[0] as BoundedCache).info()
    return { ...info, bytes: info.bytes * this.batchSize, fullBytes: info.fullBytes * this.batchSize }
  }

  dispose(): void {
    for (const sequence of this.#sequences) sequence.dispose()
  }
}

function checkLength(name: string, array: unknown, length: number): void {
  if (array instanceof Float32Array && array.length === length) return
  const came = array instanceof Float32Array ? `${array.length}` : typeof array
  throw invalidArgument('cache', `expected a Float32Array of ${length} for ${name}, got ${came}`)
}
