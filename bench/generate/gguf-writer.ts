/** The header of a GGUF file, version 3: keys with their values, then where tensors are. */

/** gguf_type */
const kinds = { integer: 4, float: 6, string: 8, array: 9 } as const

export class GgufWriter {
  readonly #parts: Uint8Array[] = []
  readonly #numTensors: number
  #numKeys = 0

  constructor(numTensors: number) {
    this.#numTensors = numTensors
  }

  integer(key: string, value: number): void {
    this.#key(key, kinds.integer)
    this.#word(value)
  }

  float(key: string, value: number): void {
    this.#key(key, kinds.float)
    this.#parts.push(new Uint8Array(Float32Array.of(value).buffer))
  }

  string(key: string, value: string): void {
    this.#key(key, kinds.string)
    this.#text(value)
  }

  strings(key: string, values: readonly string[]): void {
    this.#key(key, kinds.array)
    this.#word(kinds.string)
    this.#long(values.length)
    for (const value of values) this.#text(value)
  }

  /**
   * After all keys.
   * @param dims the fastest first
   * @param offset from the beginning of the first tensor
   */
  tensor(name: string, dims: readonly number[], type: number, offset: number): void {
    this.#text(name)
    this.#word(dims.length)
    for (const dim of dims) this.#long(dim)
    this.#word(type)
    this.#long(offset)
  }

  finish(): Uint8Array {
    const head = new DataView(new ArrayBuffer(24))
    head.setUint32(0, 0x46554747, true) // GGUF
    head.setUint32(4, 3, true)
    head.setBigUint64(8, BigInt(this.#numTensors), true)
    head.setBigUint64(16, BigInt(this.#numKeys), true)
    return Buffer.concat([new Uint8Array(head.buffer), ...this.#parts])
  }

  #key(key: string, kind: number): void {
    this.#numKeys++
    this.#text(key)
    this.#word(kind)
  }

  #text(text: string): void {
    const bytes = new TextEncoder().encode(text)
    this.#long(bytes.length)
    this.#parts.push(bytes)
  }

  #word(value: number): void {
    this.#parts.push(new Uint8Array(Uint32Array.of(value).buffer))
  }

  #long(value: number): void {
    this.#parts.push(new Uint8Array(BigUint64Array.of(BigInt(value)).buffer))
  }
}
