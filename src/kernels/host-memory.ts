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

type View = Float32Array | Float64Array | Uint16Array | Uint8Array | Int32Array
type ViewConstructor = new (buffer: ArrayBuffer, offset: number, length: number) => View

class HostMemory implements Memory {
  readonly byteLength: number
  #buffer: ArrayBuffer | undefined
  readonly #offset: number
  readonly #length: number
  readonly #views = new Map<ViewConstructor, View>()

  constructor(byteLength: number, buffer: ArrayBuffer, offset: number, length: number) {
    this.byteLength = byteLength
    this.#buffer = buffer
    this.#offset = offset
    this.#length = length
  }

  get f32() {
    return this.#view(Float32Array, 4)
  }
  get f64() {
    return this.#view(Float64Array, 8)
  }
  get u16() {
    return this.#view(Uint16Array, 2)
  }
  get u8() {
    return this.#view(Uint8Array, 1)
  }
  get i32() {
    return this.#view(Int32Array, 4)
  }

  free(): void {
    this.#buffer = undefined
    this.#views.clear()
  }

  #view<T extends View>(Type: new (buffer: ArrayBuffer, offset: number, length: number) => T, bytes: number): T {
    const known = this.#views.get(Type)
    if (known) return known as T
    const buffer = this.#buffer
    if (!buffer) throw usedAfterFree()
    const view = guard(this.byteLength, () => new Type(buffer, this.#offset, this.#length / bytes))
    this.#views.set(Type, view)
    return view
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
