/** Reuses the memory of activations: a step takes buffers and gives them back, so a steady step allocates none. */
import { Tensor } from 'onnxruntime-node'

export class BufferPool {
  readonly #free: Float32Array[] = []
  readonly #owner = new WeakMap<ArrayBufferLike, Float32Array>()

  /** `length` elements with arbitrary contents. */
  take(length: number): Float32Array {
    const at = this.#bestFit(length)
    const buffer = at < 0 ? new Float32Array(length) : (this.#free.splice(at, 1)[0] as Float32Array)
    this.#owner.set(buffer.buffer, buffer)
    return buffer.length === length ? buffer : buffer.subarray(0, length)
  }

  /** An f32 tensor with arbitrary contents. */
  tensor(dims: readonly number[]): Tensor {
    return new Tensor('float32', this.take(dims.reduce((product, dim) => product * dim, 1)), dims)
  }

  /** Takes memory back; memory of others (what ONNX Runtime allocated itself) is left alone. */
  give(data: ArrayBufferView): void {
    const buffer = this.#owner.get(data.buffer)
    if (!buffer) return
    this.#owner.delete(data.buffer)
    this.#free.push(buffer)
  }

  /** The smallest free buffer that is large enough but less than four times too large, or -1. */
  #bestFit(length: number): number {
    let best = -1
    for (const [i, { length: size }] of this.#free.entries()) {
      if (size < length || size > 4 * length + 1024) continue
      if (best < 0 || size < this.#free[best]!.length) best = i
    }
    return best
  }
}
