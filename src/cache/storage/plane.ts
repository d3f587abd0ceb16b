/** Rows of one width and type in memory that kernels read: the one place that knows their bytes. */
import { type Kernels, type Memory, rowBytes, type StorageArray } from '../../kernels/index.ts'
import { decodeRows, type RowFormat } from './decode-rows.ts'

export class Plane {
  readonly format: RowFormat
  readonly rowBytes: number
  readonly #memory: Memory

  constructor(kernels: Kernels, format: RowFormat, rows: number) {
    this.format = format
    this.rowBytes = rowBytes(format.dim, format.storage)
    this.#memory = kernels.alloc(rows * this.rowBytes)
  }

  get bytes(): number {
    return this.#memory.byteLength
  }

  /** All rows as kernels take them: a view, good until something is allocated. */
  get array(): StorageArray {
    const { storage } = this.format
    if (storage === 'f32') return this.#memory.f32
    return storage === 'f16' || storage === 'bf16' ? this.#memory.u16 : this.#memory.u8
  }

  /** Rows from `first` on as opaque bytes: a view, as `array`. */
  rows(first: number, count: number): Uint8Array {
    return this.#memory.u8.subarray(first * this.rowBytes, (first + count) * this.rowBytes)
  }

  /** Copies rows of a plane of the same format, another or this one. */
  copy(source: Plane, from: number, to: number, count: number): void {
    this.#memory.u8.set(source.rows(from, count), to * this.rowBytes)
  }

  /** Rows as f32, `[rows.length, D]`. */
  read(rows: Int32Array): Float32Array {
    const into = new Float32Array(rows.length * this.format.dim)
    decodeRows(this.array, this.format, rows, into)
    return into
  }

  free(): void {
    this.#memory.free()
  }
}

/** All rows of a store or pool, the same number in each plane. */
export interface RowPlanes {
  /** `[rows, D]` */
  readonly keys: Plane
  /** `[rows, E]` */
  readonly values: Plane
  /** `[rows, D]` */
  readonly originals: Plane | undefined
}

/** Those planes of some that there are. */
export function planeList({ keys, values, originals }: RowPlanes): Plane[] {
  return originals ? [keys, values, originals] : [keys, values]
}

/** Copies rows in all planes. */
export function copyRows(source: RowPlanes, from: number, target: RowPlanes, to: number, count: number): void {
  target.keys.copy(source.keys, from, to, count)
  target.values.copy(source.values, from, to, count)
  if (source.originals) target.originals?.copy(source.originals, from, to, count)
}
