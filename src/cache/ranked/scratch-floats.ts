/** Numbers where kernels can write them, in one block that grows: what it held is lost then. */
import type { Kernels, Memory } from '../../kernels/index.ts'

export class ScratchFloats {
  readonly #kernels: Kernels
  #memory: Memory | undefined

  constructor(kernels: Kernels) {
    this.#kernels = kernels
  }

  /** Room for `count` numbers at least. */
  reserve(count: number): Float32Array {
    if (this.#memory === undefined || this.#memory.byteLength < 4 * count) {
      this.free()
      this.#memory = this.#kernels.alloc(4 * Math.ceil(1.25 * count))
    }
    return this.#memory.f32
  }

  free(): void {
    this.#memory?.free()
    this.#memory = undefined
  }
}
