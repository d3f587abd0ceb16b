/** Rows of each head side by side, `[K, C, D]` and `[K, C, E]`: the layout for a single sequence. */
import type { KeyValueSegment, Memory, FloatArray as StorageArray } from '../kernels/index.ts'
import { bytesOf, type RowPlanes, RowStore, type StoreOptions } from './row-store.ts'

export interface ContiguousOptions extends StoreOptions {
  /** Rows a head at the start ... */
  readonly capacity: number
  /** ... and to come back to when no head needs more (default: never). */
  readonly settles?: boolean
}

interface Planes {
  readonly keys: Memory
  readonly values: Memory
  readonly originals: Memory | undefined
}

export class ContiguousStore extends RowStore {
  readonly #options: ContiguousOptions
  #capacity: number
  #memory: Planes

  constructor(options: ContiguousOptions, capacity = options.capacity) {
    super(options)
    this.#options = options
    this.#capacity = capacity
    this.#memory = this.#alloc(capacity)
  }

  get capacity(): number {
    return this.#capacity
  }

  get bytes(): number {
    const { keys, values, originals } = this.#memory
    return keys.byteLength + values.byteLength + (originals?.byteLength ?? 0)
  }

  protected get planes(): RowPlanes {
    const { keys, values, originals } = this.#memory
    return { keys: this.#view(keys), values: this.#view(values), originals: originals && this.#view(originals) }
  }

  protected get numFlat(): number {
    return this.#capacity * this.options.numKvHeads
  }

  protected flat(head: number, row: number): number {
    return head * this.#capacity + row
  }

  protected own(): void {}

  /** Grows to what is asked for, by doubling where the store never settles. */
  reserve(lengths: Int32Array): void {
    const most = Math.max(...lengths)
    if (most <= this.#capacity) return
    let capacity = this.#options.settles ? most : Math.max(1, this.#capacity)
    while (capacity < most) capacity *= 2
    this.#relocate(capacity, this.#capacity)
  }

  release(lengths: Int32Array): void {
    if (!this.#options.settles || this.#capacity <= this.#options.capacity) return
    const capacity = Math.max(this.#options.capacity, ...lengths)
    if (capacity < this.#capacity) this.#relocate(capacity, capacity)
  }

  segment(lengths: Int32Array): KeyValueSegment {
    const { keys, values } = this.#memory
    const arrays = { keys: this.#view(keys), values: this.#view(values), storage: this.options.kvDtype }
    return { ...arrays, capacity: this.#capacity, lengths }
  }

  fork(lengths: Int32Array): ContiguousStore {
    const capacity = Math.max(this.#options.capacity, ...lengths)
    const copy = new ContiguousStore(this.#options, capacity)
    copyPlanes(this.planes, this.#capacity, copy.planes, capacity, lengths, this.options)
    return copy
  }

  free(): void {
    for (const plane of [this.#memory.keys, this.#memory.values, this.#memory.originals]) plane?.free()
  }

  /** Moves the first `rows` rows of each head to memory for `capacity` of them. */
  #relocate(capacity: number, rows: number): void {
    const memory = this.#alloc(capacity)
    const old = this.planes
    const oldCapacity = this.#capacity
    this.free()
    this.#memory = memory
    this.#capacity = capacity
    const lengths = new Int32Array(this.options.numKvHeads).fill(rows)
    copyPlanes(old, oldCapacity, this.planes, capacity, lengths, this.options)
  }

  #view(memory: Memory): StorageArray {
    return this.options.kvDtype === 'f32' ? memory.f32 : memory.u16
  }

  #alloc(capacity: number): Planes {
    const { kernels, numKvHeads, headDim, valueDim, kvDtype, hasOriginals } = this.options
    const bytes = numKvHeads * capacity * bytesOf[kvDtype]
    return {
      keys: kernels.alloc(bytes * headDim),
      values: kernels.alloc(bytes * valueDim),
      originals: hasOriginals ? kernels.alloc(bytes * headDim) : undefined,
    }
  }
}

/** Copies the first lengths[k] rows of each head. */
function copyPlanes(
  from: RowPlanes,
  fromCapacity: number,
  to: RowPlanes,
  toCapacity: number,
  lengths: Int32Array,
  { headDim, valueDim }: StoreOptions,
): void {
  const copy = (target: StorageArray, source: StorageArray, k: number, dim: number) => {
    const start = k * fromCapacity * dim
    target.set(source.subarray(start, start + (lengths[k] as number) * dim), k * toCapacity * dim)
  }
  for (let k = 0; k < lengths.length; k++) {
    copy(to.keys, from.keys, k, headDim)
    copy(to.values, from.values, k, valueDim)
    if (from.originals && to.originals) copy(to.originals, from.originals, k, headDim)
  }
}
