/** What the caches of all policies share: the shape of a layer, its store, and checks of what comes in. */
import type { Kernels, FloatType as StorageType } from '../kernels/index.ts'
import { checkInteger, describe } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import { ContiguousStore } from './contiguous-store.ts'
import type { LayerInput, LayerShape } from './contract.ts'
import type { PagePool } from './page-pool.ts'
import { PagedStore } from './paged-store.ts'
import { type RowStore, rowBytes } from './row-store.ts'
import type { StateVisitor } from './snapshot/state.ts'

/** One layer: its shape, how its rows are stored and where its keys stand. */
export interface LayerConfig {
  readonly kernels: Kernels
  readonly shape: LayerShape
  readonly kvDtype: StorageType
  /** Rows lie in its pages; absent: side by side in memory of their own. */
  readonly pool?: PagePool
  /** The cache rotates queries and keys (default: they come rotated). */
  readonly rotates?: boolean
  /** By rank among the kept tokens; only with `rotates`. */
  readonly isRanked?: boolean
  /** Evictions that are remembered (default 0). */
  readonly evictionLog?: number
}

/** What every kernel call for a layer needs: its sizes and what becomes of its logits. */
export function attentionOf({ numHeads, numKvHeads, headDim, valueDim, ...rest }: LayerShape) {
  const { scale = 1 / Math.sqrt(headDim), softcap, sinkLogits, alibiSlopes } = rest
  return { numHeads, numKvHeads, headDim, valueDim, scale, softcap, sinkLogits, alibiSlopes }
}

/**
 * A store for `capacity` rows a head.
 * @param settles whether it gives back what it had to grow by
 */
export function createStore(config: LayerConfig, capacity: number, settles = false): RowStore {
  const { kernels, shape, kvDtype, pool, isRanked } = config
  const { numKvHeads, headDim, valueDim } = shape
  const options = { kernels, kvDtype, numKvHeads, headDim, valueDim, hasOriginals: isRanked === true, capacity }
  return pool ? new PagedStore({ ...options, settles, pool }) : new ContiguousStore({ ...options, settles })
}

/** What a state must have been written with to fit a layer. */
export function visitConfig(visitor: StateVisitor, { shape, kvDtype, rotates = false }: LayerConfig): void {
  const { numKvHeads, headDim, valueDim } = shape
  for (const [name, value] of Object.entries({ kvDtype, numKvHeads, headDim, valueDim, rotates })) {
    visitor.fixed(name, value)
  }
}

/**
 * Checks what a layer is given, before anything changes.
 * @throws KvasirError `invalid-argument`: arrays too short; importance absent where the cache needs it, NaN, +Infinity
 */
export function checkInput(
  { shape }: LayerConfig,
  needsImportance: boolean,
  input: Partial<LayerInput>,
  output?: Float32Array,
  isAgain = false,
): void {
  const { numTokens: T = 0, query, key, value, importance } = input
  const { numHeads: H, numKvHeads: K, headDim: D, valueDim: E } = shape
  checkInteger('cache', 'numTokens', T, 0)
  if (query) atLeast('query', query, T * H * D)
  if (output) atLeast('output', output, T * H * E)
  if (isAgain) return
  atLeast('key', key, T * K * D)
  atLeast('value', value, T * K * E)
  if (needsImportance) atLeast('importance', importance, T * K)
  if (importance) checkImportance(importance)
}

/** @throws KvasirError `invalid-argument` for NaN and for +Infinity, which would make every logit beside it vanish */
export function checkImportance(importance: Float32Array): void {
  for (const value of importance) {
    if (!(value < Number.POSITIVE_INFINITY)) {
      throw invalidArgument('cache', `expected importance without NaN and below Infinity, got ${value}`)
    }
  }
}

/** @throws KvasirError `invalid-argument` for NaN, as a score of one's own may give */
export function checkScores(scores: Float32Array): void {
  if (scores.some(Number.isNaN)) throw invalidArgument('cache', 'expected scores without NaN')
}

function atLeast(name: string, array: unknown, length: number): void {
  if (array instanceof Float32Array && array.length >= length) return
  const came = array instanceof Float32Array ? `${array.length}` : describe(array)
  throw invalidArgument('cache', `expected a Float32Array of at least ${length} for ${name}, got ${came}`)
}

export type Queries = Pick<LayerInput, 'query' | 'numTokens' | 'rotary'>

/** Token t of a chunk by itself. */
export function tokenOf<T extends Omit<LayerInput, 'query'> & { readonly query?: Float32Array }>(
  { numHeads, numKvHeads, headDim, valueDim }: LayerShape,
  input: T,
  t: number,
): T {
  const part = (array: Float32Array | undefined, size: number) => array?.subarray(t * size, (t + 1) * size)
  return {
    ...input,
    numTokens: 1,
    query: part(input.query, numHeads * headDim),
    key: part(input.key, numKvHeads * headDim),
    value: part(input.value, numKvHeads * valueDim),
    importance: part(input.importance, numKvHeads),
  }
}

/** `[T, K]` to `[K, T]`. */
export function headMajor(values: Float32Array | undefined, numKvHeads: number, numTokens: number) {
  return (
    values &&
    Float32Array.from({ length: numKvHeads * numTokens }, (_, i) => {
      return values[(i % numTokens) * numKvHeads + Math.floor(i / numTokens)] as number
    })
  )
}

/** Bytes of K, V and, for models with importance, the bias of one token of one layer. */
export function bytesPerToken({ shape, kvDtype, isRanked }: LayerConfig, hasBias: boolean): number {
  return shape.numKvHeads * (rowBytes({ ...shape, hasOriginals: isRanked === true }, kvDtype) + (hasBias ? 4 : 0))
}
