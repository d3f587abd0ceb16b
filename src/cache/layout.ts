/** What the caches of all policies share: the shape of a layer, its storage, and views of it. */
import type { Kernels, Memory, StorageArray, StorageType } from '../kernels/index.ts'
import { checkInteger, describe } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import type { LayerInput, LayerShape } from './contract.ts'

/** One layer: its shape, the storage type, the backend. */
export interface LayerConfig {
  readonly kernels: Kernels
  readonly shape: LayerShape
  readonly kvDtype: StorageType
}

/** What every kernel call for a layer needs: its sizes and what becomes of its logits. */
export function attentionOf({ numHeads, numKvHeads, headDim, valueDim, ...rest }: LayerShape) {
  const { scale = 1 / Math.sqrt(headDim), softcap, sinkLogits, alibiSlopes } = rest
  return { numHeads, numKvHeads, headDim, valueDim, scale, softcap, sinkLogits, alibiSlopes }
}

const bytesOf = { f32: 4, f16: 2, bf16: 2 } as const satisfies Record<StorageType, number>

/** K and V for `capacity` tokens of each KV head: `[K, C, D]` and `[K, C, E]`, uninitialised in meaning. */
export class KeyValueStore {
  readonly capacity: number
  readonly #config: LayerConfig
  readonly #keys: Memory
  readonly #values: Memory

  constructor(config: LayerConfig, capacity: number) {
    const { kernels, shape, kvDtype } = config
    const rows = shape.numKvHeads * capacity
    this.capacity = capacity
    this.#config = config
    this.#keys = kernels.alloc(rows * shape.headDim * bytesOf[kvDtype])
    this.#values = kernels.alloc(rows * shape.valueDim * bytesOf[kvDtype])
  }

  get keys(): StorageArray {
    return this.#config.kvDtype === 'f32' ? this.#keys.f32 : this.#keys.u16
  }

  get values(): StorageArray {
    return this.#config.kvDtype === 'f32' ? this.#values.f32 : this.#values.u16
  }

  get bytes(): number {
    return this.#keys.byteLength + this.#values.byteLength
  }

  /**
   * Writes new tokens (`key [T, K, D]`, `value [T, K, E]`) to rows: for head k the counts[k] pairs
   * (tokens[k, n], slots[k, n]), with `stride` entries a head.
   */
  write(key: Float32Array, value: Float32Array, numTokens: number, rows: RowList): void {
    const { kernels, shape } = this.#config
    const common = { numTokens, numKvHeads: shape.numKvHeads, capacity: this.capacity, ...rows }
    kernels.store({ ...common, source: key, target: this.keys, headDim: shape.headDim })
    kernels.store({ ...common, source: value, target: this.values, headDim: shape.valueDim })
  }

  /** Copies the first `lengths[k]` rows of each head of `other`, whose capacity may be smaller. */
  copyFrom(other: KeyValueStore, lengths: Int32Array): void {
    const { headDim, valueDim } = this.#config.shape
    for (const [k, length] of lengths.entries()) {
      const copy = (to: StorageArray, from: StorageArray, dim: number) => {
        const start = k * other.capacity * dim
        to.set(from.subarray(start, start + length * dim), k * this.capacity * dim)
      }
      copy(this.keys, other.keys, headDim)
      copy(this.values, other.values, valueDim)
    }
  }

  free(): void {
    this.#keys.free()
    this.#values.free()
  }
}

/** Which source token goes to which row, for each KV head. */
export interface RowList {
  /** `[K]` */
  readonly counts: Int32Array
  /** `[K, stride]` */
  readonly tokens: Int32Array
  /** `[K, stride]` */
  readonly slots: Int32Array
  readonly stride: number
}

/** Every new token, to the rows from `firstRow` on, in order, for all heads. */
export function consecutiveRows(numKvHeads: number, numTokens: number, firstRow: number): RowList {
  const tokens = Int32Array.from({ length: numKvHeads * numTokens }, (_, i) => i % numTokens)
  return {
    counts: new Int32Array(numKvHeads).fill(numTokens),
    tokens,
    slots: tokens.map((t) => firstRow + t),
    stride: numTokens,
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

function atLeast(name: string, array: unknown, length: number): void {
  if (array instanceof Float32Array && array.length >= length) return
  const came = array instanceof Float32Array ? `${array.length}` : describe(array)
  throw invalidArgument('cache', `expected a Float32Array of at least ${length} for ${name}, got ${came}`)
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
export function bytesPerToken({ shape, kvDtype }: LayerConfig, hasBias: boolean): number {
  return shape.numKvHeads * ((shape.headDim + shape.valueDim) * bytesOf[kvDtype] + (hasBias ? 4 : 0))
}
