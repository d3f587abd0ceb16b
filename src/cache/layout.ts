/** What the caches of all policies share: the shape of a layer, its store, and checks of what comes in. */
import type { Kernels } from '../kernels/index.ts'
import { checkInteger, describe } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import type { LayerInput, LayerShape } from './contract.ts'
import type { StateVisitor } from './snapshot/state.ts'
import { ContiguousStore } from './storage/contiguous-store.ts'
import type { PagePool } from './storage/page-pool.ts'
import { PagedStore } from './storage/paged-store.ts'
import type { PlaneStore, StoreOptions } from './storage/plane-store.ts'
import { ResidualStore } from './storage/residual-store.ts'
import type { RowStore } from './storage/row-store.ts'
import { bytesOfRow, type RowTypes, residualTypes } from './storage/row-types.ts'

/** One layer: its shape, how its rows are stored and where its keys stand. */
export interface LayerConfig extends RowTypes {
  readonly kernels: Kernels
  readonly shape: LayerShape
  /** Rows lie in its pages; absent: side by side in memory of their own. */
  readonly pool?: PagePool
  /** The same for the newest tokens, of which there are `residual`. */
  readonly residualPool?: PagePool
  /** The cache rotates queries and keys (default: they come rotated). */
  readonly rotates?: boolean
  /** By rank among the kept tokens; only with `rotates`. */
  readonly isRanked?: boolean
  /** Evictions that are remembered (default 0). */
  readonly evictionLog?: number
}

/**
 * A store for `capacity` rows a head.
 * @param settles whether it gives back what it had to grow by
 */
export function createStore(config: LayerConfig, capacity: number, settles = false): RowStore {
  const main = createPlaneStore(config, capacity, settles)
  if (config.residual === 0) return main
  const ring = { ...residualTypes(config), pool: config.residualPool }
  const createRing = () => createPlaneStore(ring, config.residual)
  return new ResidualStore({ ...storeOptions(config), createRing }, main)
}

function createPlaneStore(config: LayerConfig, capacity: number, settles = false): PlaneStore {
  const options = { ...storeOptions(config), capacity, settles }
  return config.pool ? new PagedStore({ ...options, pool: config.pool }) : new ContiguousStore(options)
}

function storeOptions({ kernels, shape, isRanked, ...types }: LayerConfig): StoreOptions {
  const { numKvHeads, headDim, valueDim } = shape
  const { keyType, valueType, hadamard, residual, isUsualResidual } = types
  const sizes = { numKvHeads, headDim, valueDim, hasOriginals: isRanked === true }
  return { kernels, ...sizes, keyType, valueType, hadamard, residual, isUsualResidual }
}

/** What a state must have been written with to fit a layer. */
export function visitConfig(visitor: StateVisitor, { shape, rotates = false, ...types }: LayerConfig): void {
  const { numKvHeads, headDim, valueDim } = shape
  const { keyType: kvDtypeK, valueType: kvDtypeV, hadamard } = types
  const settings = { kvDtypeK, kvDtypeV, hadamard, numKvHeads, headDim, valueDim, rotates }
  for (const [name, value] of Object.entries(settings)) {
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
  for (let n = 0; n < importance.length; n++) {
    if (!((importance[n] as number) < Number.POSITIVE_INFINITY)) {
      throw invalidArgument('cache', `expected importance without NaN and below Infinity, got ${importance[n]}`)
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

/** Bytes of K, V and, for models with importance, the bias of so many tokens of one layer, when all are kept. */
export function bytesOfTokens(config: LayerConfig, numTokens: number, hasBias: boolean): number {
  const { shape, residual } = config
  const row = bytesOfRow(storeOptions(config)) + (hasBias ? 4 : 0)
  const copies = Math.min(numTokens, residual) * bytesOfRow(storeOptions(residualTypes(config)))
  return shape.numKvHeads * (numTokens * row + copies)
}
