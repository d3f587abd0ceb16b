/**
 * A call as the WebAssembly module takes it: a row of numbers in its memory. Arrays that lie in that memory become
 * their addresses; others are copied in behind the numbers, and copied back when the call writes them.
 */
import { KvasirError } from '../tensor/error.ts'
import type { CallValue, KernelArray } from './calls.ts'
import type { WasmBlock, WasmHeap } from './wasm-memory.ts'

/** More numbers than any call has. */
const numbersBytes = 8 * 160
const step = 65536

/** A block that grows to the largest that was asked for. */
export class WasmScratch {
  readonly #heap: WasmHeap
  #block: WasmBlock | undefined

  constructor(heap: WasmHeap) {
    this.#heap = heap
  }

  /** The address of so many bytes, good until the next call of this. */
  reserve(byteLength: number): number {
    if (!this.#block || this.#block.byteLength < byteLength) {
      const grown = this.#heap.alloc(Math.ceil(byteLength / step) * step)
      this.#block?.free()
      this.#block = grown
    }
    return this.#block.address
  }

  free(): void {
    this.#block?.free()
    this.#block = undefined
  }
}

/** A copy that several calls read. */
interface HeldCopy {
  readonly of: KernelArray
  readonly address: number
}

export class WasmFrame {
  readonly #heap: WasmHeap
  readonly #block: WasmScratch
  readonly #heldBlock: WasmScratch
  #held: readonly HeldCopy[] = []
  /** Where the copies of the call lie. */
  readonly #copies = new Map<KernelArray, number>()

  constructor(heap: WasmHeap) {
    this.#heap = heap
    this.#block = new WasmScratch(heap)
    this.#heldBlock = new WasmScratch(heap)
  }

  /** Copies arrays that are not in memory: calls find them, or parts of them, there until `letGo`. */
  hold(arrays: readonly KernelArray[]): void {
    const held = arrays.filter(({ buffer }) => !this.#heap.owns(buffer))
    if (held.length === 0) return
    let at = this.#heldBlock.reserve(held.reduce((sum, { byteLength }) => sum + padded(byteLength), 0))
    this.#held = held.map((array) => {
      const address = at
      this.#copyIn(array, address)
      at += padded(array.byteLength)
      return { of: array, address }
    })
  }

  letGo(): void {
    this.#held = []
    this.#heldBlock.free()
  }

  /** Writes a call and returns the address of its numbers. */
  place(values: readonly CallValue[]): number {
    this.#copies.clear()
    // Before anything can grow the memory, which may detach the arrays in it.
    const addresses = values.map((value) => this.#addressOf(value))
    let needed = numbersBytes
    for (const [i, value] of values.entries()) {
      if (addresses[i] === undefined) needed += padded((value as KernelArray).byteLength)
    }
    const start = this.#block.reserve(needed)
    const numbers = new Float64Array(this.#heap.buffer, start, values.length)
    let at = start + numbersBytes
    for (const [i, value] of values.entries()) {
      const address = addresses[i]
      numbers[i] = address ?? at
      if (address !== undefined) continue
      const array = value as KernelArray
      this.#copies.set(array, at)
      this.#copyIn(array, at)
      at += padded(array.byteLength)
    }
    return start
  }

  copyBack(outputs: readonly KernelArray[]): void {
    for (const array of outputs) {
      const address = this.#copies.get(array)
      if (address !== undefined) array.set(this.#view(array, address))
    }
    this.#copies.clear()
  }

  free(): void {
    this.letGo()
    this.#block.free()
  }

  /** A number is what it is, an array of this memory its address; undefined: to be copied. */
  #addressOf(value: CallValue): number | undefined {
    if (typeof value !== 'object') return Number(value ?? 0)
    if (this.#heap.owns(value.buffer)) return value.byteOffset
    const end = value.byteOffset + value.byteLength
    const copy = this.#held.find(
      ({ of }) =>
        of.buffer === value.buffer && of.byteOffset <= value.byteOffset && end <= of.byteOffset + of.byteLength,
    )
    return copy && copy.address + value.byteOffset - copy.of.byteOffset
  }

  #copyIn(array: KernelArray, address: number): void {
    try {
      this.#view(array, address).set(array)
    } catch (cause) {
      const message =
        'expected arrays that stay as they are until the call is done, got one of a detached or cut buffer'
      throw new KvasirError('invalid-argument', 'kernels', message, { cause })
    }
  }

  #view(like: KernelArray, address: number): KernelArray {
    const View = like.constructor as new (buffer: ArrayBufferLike, offset: number, length: number) => KernelArray
    return new View(this.#heap.buffer, address, like.length)
  }
}

function padded(bytes: number): number {
  return Math.ceil(bytes / 64) * 64
}
