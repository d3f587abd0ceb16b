/** Rows of each head side by side, `[K, C, D]` and `[K, C, E]`: the layout for a single sequence. */
import type { Rotation, RowTarget } from '../../kernels/index.ts'
import { copyRows, planeList, type RowPlanes } from './plane.ts'
import { PlaneStore, type StoreOptions } from './plane-store.ts'
import { mostOf, type NewRows, type RowList, type Writes } from './row-store.ts'
import { createPlanes } from './row-types.ts'

export interface ContiguousOptions extends StoreOptions {
  /** Rows a head at the start ... */
  readonly capacity: number
  /** ... and to come back to when no head needs more (default: never). */
  readonly settles?: boolean
}

export class ContiguousStore extends PlaneStore {
  readonly #options: ContiguousOptions
  #capacity: number
  #planes: RowPlanes

  constructor(options: ContiguousOptions, capacity = options.capacity) {
    super(options)
    this.#options = options
    this.#capacity = capacity
    this.#planes = this.#create(capacity)
  }

  get capacity(): number {
    return this.#capacity
  }

  get bytes(): number {
    return planeList(this.#planes).reduce((sum, plane) => sum + plane.bytes, 0)
  }

  protected get planes(): RowPlanes {
    return this.#planes
  }

  protected get numFlat(): number {
    return this.#capacity * this.options.numKvHeads
  }

  protected flat(head: number, row: number): number {
    return head * this.#capacity + row
  }

  protected own(): void {}

  protected readonly layout = 'head-major'
  protected readonly table = undefined

  protected get targetRows(): number {
    return this.#capacity
  }

  override readonly targets = (input: NewRows, turn?: Rotation): RowTarget[] => this.places(input, turn)

  protected ready({ slots }: RowList): Int32Array {
    return slots
  }

  /**
   * Grows to what is asked for, by doubling where the store never settles and rows come one after the other. A length
   * that is told before its rows come is not doubled: memory that is touched for nothing takes time as well.
   */
  reserve(lengths: Int32Array, { count }: Pick<Writes, 'count'>): void {
    const most = mostOf(lengths)
    if (most <= this.#capacity) return
    const { settles } = this.#options
    let capacity = settles ? most : Math.max(1, this.#capacity)
    if (count === 0 && !settles) capacity = Math.max(2 * capacity, most + Math.ceil(most / 8))
    while (capacity < most) capacity *= 2
    this.#relocate(capacity, this.#capacity)
  }

  release(lengths: Int32Array): void {
    if (!this.#options.settles || this.#capacity <= this.#options.capacity) return
    const capacity = Math.max(this.#options.capacity, mostOf(lengths))
    if (capacity < this.#capacity) this.#relocate(capacity, capacity)
  }

  fork(lengths: Int32Array): ContiguousStore {
    const capacity = Math.max(this.#options.capacity, mostOf(lengths))
    const copy = new ContiguousStore(this.#options, capacity)
    copyHeads(this.#planes, this.#capacity, copy.#planes, capacity, lengths)
    return copy
  }

  free(): void {
    for (const plane of planeList(this.#planes)) plane.free()
  }

  /** Moves the first `rows` rows of each head to memory for `capacity` of them. */
  #relocate(capacity: number, rows: number): void {
    const planes = this.#create(capacity)
    const lengths = new Int32Array(this.options.numKvHeads).fill(rows)
    copyHeads(this.#planes, this.#capacity, planes, capacity, lengths)
    this.free()
    this.#planes = planes
    this.#capacity = capacity
  }

  #create(capacity: number): RowPlanes {
    return createPlanes(this.options.kernels, this.options, this.options.numKvHeads * capacity)
  }
}

/** Copies the first lengths[k] rows of each head. */
function copyHeads(from: RowPlanes, capacity: number, to: RowPlanes, newCapacity: number, lengths: Int32Array): void {
  for (let k = 0; k < lengths.length; k++) {
    copyRows(from, k * capacity, to, k * newCapacity, lengths[k] as number)
  }
}
