/** A state as bytes in memory, and back: see state.ts. */
import { endianness } from 'node:os'
import { describe } from '../../tensor/check.ts'
import { KvasirError } from '../../tensor/error.ts'
import { invalidState, type Stateful, type StateVisitor } from './state.ts'

type Values = Int32Array | Float32Array | Float64Array | Uint8Array

/** Names and values of fixed fields are short; more is not read. */
const maxFixedBytes = 256

/** What the state of `object` takes; nothing is copied. */
export function stateBytes(object: Stateful): number {
  const counter = new Counter()
  object.visitState(counter)
  return counter.count
}

export function encodeState(object: Stateful): Uint8Array {
  const bytes = allocate(stateBytes(object))
  object.visitState(new Writer(bytes))
  return bytes
}

/**
 * Gives `object`, which was just made, the state in `bytes`.
 * @throws KvasirError `invalid-file` when it is that of another kind of object, or of none; `object` is of no use then
 */
export function decodeState(object: Stateful, bytes: Uint8Array): void {
  const reader = new Reader(bytes)
  object.visitState(reader)
  reader.finish()
}

class Counter implements StateVisitor {
  readonly isReading = false
  count = 0

  fixed(name: string, value: string | number | boolean): void {
    this.text(fixedText(name, value))
  }

  integer(_name: string, value: number): number {
    this.double(value)
    return value
  }

  integers(_name: string, values: Values): void {
    this.bytes(values)
  }

  numbers(values: Values): void {
    this.bytes(values)
  }

  bytes(values: Values): void {
    this.count += values.byteLength
  }

  expect(): void {}

  protected text(text: string): void {
    this.count += 2 + Buffer.byteLength(text)
  }

  protected double(_value: number): void {
    this.count += 8
  }
}

/** Writes at what it has counted. */
class Writer extends Counter {
  readonly #bytes: Buffer

  constructor(bytes: Uint8Array) {
    super()
    checkEndianness()
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  override bytes(values: Values): void {
    this.#bytes.set(bytesOf(values), this.count)
    super.bytes(values)
  }

  protected override text(text: string): void {
    this.#bytes.writeUInt16LE(Buffer.byteLength(text), this.count)
    this.#bytes.write(text, this.count + 2)
    super.text(text)
  }

  protected override double(value: number): void {
    this.#bytes.writeDoubleLE(value, this.count)
    super.double(value)
  }
}

class Reader implements StateVisitor {
  readonly isReading = true
  readonly #bytes: Buffer
  #at = 0

  constructor(bytes: Uint8Array) {
    checkEndianness()
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  fixed(name: string, value: string | number | boolean): void {
    const expected = fixedText(name, value)
    const length = this.#take(`${name}`, 2).readUInt16LE()
    if (length > maxFixedBytes) throw invalidState(`expected ${expected}, got something else`)
    const text = this.#take(name, length).toString('utf8')
    if (text !== expected) throw invalidState(`expected ${expected}, got ${describe(text)}`)
  }

  integer(name: string, _value: number, min: number, max = Number.MAX_SAFE_INTEGER): number {
    const value = this.#take(name, 8).readDoubleLE()
    checkRange(name, value, min, max)
    return value
  }

  integers(name: string, values: Int32Array | Float64Array, min: number, max = Number.MAX_SAFE_INTEGER): void {
    this.#read(name, values)
    for (let i = 0; i < values.length; i++) checkRange(name, values[i] as number, min, max)
  }

  numbers(values: Float32Array | Float64Array): void {
    this.#read('numbers', values)
  }

  bytes(values: Uint8Array): void {
    this.#read('rows', values)
  }

  expect(name: string, count: number): void {
    const left = this.#bytes.length - this.#at
    if (!(count <= left)) throw invalidState(`expected ${count} more bytes for ${name}, got ${left}`)
  }

  finish(): void {
    const left = this.#bytes.length - this.#at
    if (left > 0) throw invalidState(`expected the end of the state, got ${left} more bytes`)
  }

  #take(name: string, count: number): Buffer {
    this.expect(name, count)
    this.#at += count
    return this.#bytes.subarray(this.#at - count, this.#at)
  }

  #read(name: string, values: Values): void {
    bytesOf(values).set(this.#take(name, values.byteLength))
  }
}

function checkRange(name: string, value: number, min: number, max: number): void {
  if (Number.isInteger(value) && value >= min && value <= max) return
  throw invalidState(`expected an integer in ${min}..${max} for ${name}, got ${value}`)
}

function fixedText(name: string, value: string | number | boolean): string {
  return `${name} ${value}`
}

function bytesOf(values: Values): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
}

function allocate(count: number): Uint8Array {
  try {
    return new Uint8Array(count)
  } catch (cause) {
    throw new KvasirError('out-of-memory', 'cache', `no memory for a state of ${count} bytes`, { cause })
  }
}

/** Arrays are copied as they lie in memory. */
function checkEndianness(): void {
  if (endianness() === 'LE') return
  throw new KvasirError('unsupported', 'cache', 'expected a little-endian machine: states are written as they lie')
}
