/** Where the arrays of a call lie: places at which touching a byte too many is noticed. */
import { createRequire } from 'node:module'
import { pickFrom } from '../../src/kernels/cases/random.ts'

export type TypedArray = Float32Array | Float64Array | Int32Array | Uint16Array | Uint8Array

interface Guard {
  allocate(bytes: number, atEnd: boolean): ArrayBuffer
  /** An external that is not an engine. */
  stranger(): object
}

export const guard = createRequire(import.meta.url)(process.env.KVASIR_GUARD ?? '') as Guard

/** Bytes around a view that must stay as they are. */
interface Surroundings {
  readonly bytes: Uint8Array
  readonly start: number
  readonly end: number
}

const canary = 0xa5

export class Homes {
  readonly #random: () => number
  readonly #surroundings: Surroundings[] = []
  /** What an array or object became: those that were shared stay shared. */
  readonly #moved = new Map<object, unknown>()

  constructor(random: () => number) {
    this.#random = random
  }

  /** A copy of `value` with all typed arrays in it moved to places of their own. */
  move<T>(value: T): T {
    if (typeof value !== 'object' || value === null) return value
    const known = this.#moved.get(value)
    if (known) return known as T
    const moved = this.#copy(value)
    this.#moved.set(value, moved)
    return moved as T
  }

  #copy(value: object): unknown {
    if (ArrayBuffer.isView(value)) return this.#place(value as TypedArray)
    if (Array.isArray(value)) return value.map((each) => this.move(each))
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, this.move(each)]))
  }

  #place(array: TypedArray): TypedArray {
    const { byteLength, BYTES_PER_ELEMENT: width } = array
    const kind = pickFrom(this.#random, ['own', 'end', 'end', 'start', 'inside', 'shared', 'resizable'] as const)
    const Type = array.constructor as new (buffer: ArrayBufferLike, offset: number, length: number) => TypedArray
    const before = kind === 'inside' || kind === 'shared' ? width * Math.floor(this.#random() * 9) : 0
    const after = before > 0 ? width * Math.floor(this.#random() * 9) : 0
    const bytes = before + byteLength + after
    const buffers = {
      own: () => new ArrayBuffer(bytes),
      end: () => guard.allocate(bytes, true),
      start: () => guard.allocate(bytes, false),
      inside: () => new ArrayBuffer(bytes),
      shared: () => new SharedArrayBuffer(bytes),
      resizable: () => Reflect.construct(ArrayBuffer, [bytes, { maxByteLength: bytes + 64 }]) as ArrayBuffer,
    } as const satisfies Record<string, () => ArrayBufferLike>
    const buffer = buffers[kind]()
    const moved = new Type(buffer, before, array.length)
    this.#surround(buffer, before, before + byteLength)
    if (array.length > 0) moved.set(array as never)
    return moved
  }

  #surround(buffer: ArrayBufferLike, start: number, end: number): void {
    const bytes = new Uint8Array(buffer)
    if (bytes.length === end - start) return
    bytes.fill(canary)
    this.#surroundings.push({ bytes, start, end })
  }

  /** Something has written outside of the views. */
  isDamaged(): boolean {
    return this.#surroundings.some(({ bytes, start, end }) => {
      return bytes.some((byte, i) => byte !== canary && (i < start || i >= end))
    })
  }
}
