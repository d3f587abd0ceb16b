/**
 * The wire format of protocol buffers: tags, varints and length-delimited fields, read with bounds checks and written
 * into a growing buffer. Knows nothing of ONNX; `codec.ts` drives it by a field table.
 */
import { KvasirError } from '../tensor/error.ts'

/** 0 varint, 1 eight bytes, 2 length-delimited, 5 four bytes; 3 and 4 (groups) are not used by ONNX. */
export type WireType = 0 | 1 | 2 | 5

/** An integer of up to 64 bits: a number where that is exact, else a bigint. */
export type Integer = number | bigint

/** Reads one byte range. Each method throws `invalid-file` instead of reading past the end of it. */
export class WireReader {
  readonly bytes: Uint8Array
  readonly #end: number
  position: number

  /** @param end byte after the last one that may be read; at most `bytes.length` */
  constructor(bytes: Uint8Array, position = 0, end = bytes.length) {
    this.bytes = bytes
    this.position = position
    this.#end = end
  }

  get done(): boolean {
    return this.position >= this.#end
  }

  /** Field number and wire type of the next field. */
  tag(): { field: number; wireType: WireType } {
    const start = this.position
    const tag = this.varint()
    const wireType = Number(tag) & 7
    const field = Math.floor(Number(tag) / 8)
    if (field < 1 || field >= 2 ** 29 || !(wireType <= 2 || wireType === 5)) {
      throw invalidFile(`expected a protobuf field at byte ${start}, got tag ${tag}`)
    }
    return { field, wireType: wireType as WireType }
  }

  /** An unsigned varint of at most ten bytes. */
  varint(): Integer {
    const start = this.position
    let low = 0
    let scale = 1
    for (let i = 0; i < 10; i++) {
      const byte = this.bytes[this.#advance(1)] as number
      if (i >= 7) return this.#longVarint(start) // 2^49 and up: doubles would soon lose bits
      low += (byte & 0x7f) * scale
      scale *= 128
      if (byte < 0x80) return low
    }
    throw invalidFile(`expected a varint at byte ${start}, got more than ten bytes`)
  }

  /** The same bits as a two's complement int64. */
  int64(): Integer {
    const value = this.varint()
    return typeof value === 'number' ? value : narrow(BigInt.asIntN(64, value))
  }

  float(): number {
    return this.#view().getFloat32(this.#advance(4), true)
  }

  double(): number {
    return this.#view().getFloat64(this.#advance(8), true)
  }

  /** A length and that many bytes, as a view: nothing is copied. */
  delimited(): Uint8Array {
    const start = this.position
    const length = Number(this.varint())
    if (!(length <= this.#end - this.position)) {
      throw invalidFile(`expected ${length} bytes at byte ${start}, got ${this.#end - this.position} before the end`)
    }
    const from = this.#advance(length)
    return this.bytes.subarray(from, from + length)
  }

  skip(wireType: WireType): void {
    if (wireType === 0) this.varint()
    else if (wireType === 2) this.delimited()
    else this.#advance(wireType === 1 ? 8 : 4)
  }

  /** Made when needed: most messages have no floats, and there are thousands of them. */
  #view(): DataView {
    return new DataView(this.bytes.buffer, this.bytes.byteOffset, this.bytes.byteLength)
  }

  #longVarint(start: number): Integer {
    this.position = start
    let value = 0n
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.bytes[this.#advance(1)] as number
      value |= BigInt(byte & 0x7f) << shift
      if (byte < 0x80) return narrow(BigInt.asUintN(64, value))
    }
    throw invalidFile(`expected a varint at byte ${start}, got more than ten bytes`)
  }

  /** Moves on by `count` bytes and returns where it stood. */
  #advance(count: number): number {
    const from = this.position
    if (from + count > this.#end) throw invalidFile(`expected ${count} more bytes at byte ${from}, got the end`)
    this.position = from + count
    return from
  }
}

/** Writes fields into a buffer that grows. */
export class WireWriter {
  /** Most messages are small, and arrays of up to 64 bytes are cheap to make. */
  #bytes = new Uint8Array(64)
  #length = 0

  tag(field: number, wireType: WireType): void {
    this.varint(field * 8 + wireType)
  }

  /** Negative values are written as ten bytes, as protobuf has it. */
  varint(value: Integer): void {
    let rest = value
    if (rest < 0 || rest > Number.MAX_SAFE_INTEGER) {
      let bits = BigInt.asUintN(64, BigInt(rest))
      for (; bits >= 128n; bits >>= 7n) this.#push(Number(bits & 0x7fn) | 0x80)
      this.#push(Number(bits))
      return
    }
    for (rest = Number(rest); rest >= 128; rest = Math.floor(rest / 128)) this.#push((rest % 128) | 0x80)
    this.#push(rest)
  }

  float(value: number): void {
    new DataView(this.#bytes.buffer).setFloat32(this.#grow(4), value, true)
  }

  double(value: number): void {
    new DataView(this.#bytes.buffer).setFloat64(this.#grow(8), value, true)
  }

  delimited(bytes: Uint8Array): void {
    this.varint(bytes.length)
    const from = this.#grow(bytes.length)
    this.#bytes.set(bytes, from)
  }

  /** What was written, in a buffer of its own. */
  finish(): Uint8Array {
    return this.#bytes.slice(0, this.#length)
  }

  #push(byte: number): void {
    const from = this.#grow(1)
    this.#bytes[from] = byte
  }

  #grow(count: number): number {
    const from = this.#length
    this.#length += count
    if (this.#length > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(this.#length, this.#bytes.length * 2))
      grown.set(this.#bytes.subarray(0, from))
      this.#bytes = grown
    }
    return from
  }
}

/** An `invalid-file` error of the ONNX layer. */
export function invalidFile(message: string, options?: { cause?: unknown }): KvasirError {
  return new KvasirError('invalid-file', 'onnx', message, options)
}

function narrow(value: bigint): Integer {
  return value >= BigInt(Number.MIN_SAFE_INTEGER) && value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value
}
