/** Blocks in JavaScript's own memory. */
import { KvasirError } from '../tensor/error.ts'
import type { Memory } from './contract.ts'

/**
 * Views are made when first asked for: one of a type that the block does not hold may not even exist at its size.
 * @param offsetOf bytes to leave out at the start of the buffer (at most 63), for alignment
 */
export function allocateHostMemory(byteLength: number, offsetOf: (buffer: ArrayBuffer) => number = () => 0): Memory {
  const length = Math.ceil(byteLength / 8) * 8
  const buffer = guard(byteLength, () => new ArrayBuffer(length + 64))
  const offset = offsetOf(buffer)
  return new HostMemory(byteLength, buffer, offset, length)
}

class HostMemory implements Memory {
  readonly byteLength: number
  #buffer: ArrayBuffer | undefined
  readonly #offset: number
  readonly #length: number
  #f32: Float32Array | undefined
  #f64: Float64Array | undefined
  #u16: Uint16Array | undefined
  #u8: Uint8Array | undefined
  #i32: Int32Array | undefined

  constructor(byteLength: number, buffer: ArrayBuffer, offset: number, length: number) {
    this.byteLength = byteLength
    this.#buffer = buffer
    this.#offset = offset
    this.#length = length
  }

  get f32() {
    this.#f32 ??= this.#view(Float32Array, 4)
    return this.#f32
  }
  get f64() {
    this.#f64 ??= this.#view(Float64Array, 8)
    return this.#f64
  }
  get u16() {
    this.#u16 ??= this.#view(Uint16Array, 2)
    return this.#u16
  }
  get u8() {
    this.#u8 ??= this.#view(Uint8Array, 1)
    return this.#u8
  }
  get i32() {
    this.#i32 ??= this.#view(Int32Array, 4)
    return this.#i32
  }

  free(): void {
    this.#buffer = undefined
    this.#f32 = undefined
    this.#f64 = undefined
    this.#u16 = undefined
    this.#u8 = undefined
    this.#i32 = undefined
  }

  #view<T>(Type: new (buffer: ArrayBuffer, offset: number, length: number) => T, bytes: number): T {
    const buffer = this.#buffer
    if (!buffer) throw usedAfterFree()
    return guard(this.byteLength, () => new Type(buffer, this.#offset, this.#length / bytes))
  }
}

/** A caller's mistake that would otherwise read or write what belongs to another cache by now. */
export function usedAfterFree(): KvasirError {
  return new KvasirError('invalid-argument', 'kernels', 'memory was used after it was freed (a disposed cache?)')
}

function guard<T>(byteLength: number, make: () => T): T {
  try {
    return make()
  } catch (cause) {
    throw new KvasirError('out-of-memory', 'kernels', `cannot allocate ${byteLength} bytes`, { cause })
  }
}
