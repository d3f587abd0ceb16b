/**
 * Blocks of a WebAssembly memory: first fit over a list of free ranges, grown when nothing fits. Blocks are few and
 * large (a cache allocates a handful), so a sorted list is enough.
 */
import { KvasirError } from '../tensor/error.ts'
import type { Memory } from './contract.ts'
import { usedAfterFree } from './host-memory.ts'

const alignment = 64
const pageBytes = 65536
/**
 * Left free at the end: kernels touch what they will read next, and where V is narrower than K that may lie past the
 * last row, by as much as the longest row there is.
 */
const tailBytes = 65536 * 4

interface Range {
  readonly start: number
  readonly end: number
}

export class WasmHeap {
  readonly #memory: WebAssembly.Memory
  #free: Range[]
  /** All that the memory ever showed itself as: where it is shared, views from before it grew stay good. */
  readonly #buffers = new WeakSet<ArrayBufferLike>()
  /** Gives back what JavaScript forgot to free. */
  readonly #forgotten = new FinalizationRegistry<Range>((range) => this.#release(range))

  constructor(memory: WebAssembly.Memory, heapBase: number) {
    this.#memory = memory
    this.#free = [{ start: roundUp(heapBase, alignment), end: memory.buffer.byteLength - tailBytes }]
    this.#buffers.add(memory.buffer)
  }

  /** As long as the memory is now; take it anew after each `alloc`. */
  get buffer(): ArrayBufferLike {
    return this.#memory.buffer
  }

  /** Whether a view of `buffer` is one of this memory. */
  owns(buffer: ArrayBufferLike): boolean {
    return this.#buffers.has(buffer)
  }

  /** Bytes that blocks take now. */
  get usedBytes(): number {
    return this.#memory.buffer.byteLength - this.#free.reduce((sum, { start, end }) => sum + end - start, 0)
  }

  /** @throws KvasirError `out-of-memory` when the memory cannot grow that far. */
  alloc(byteLength: number): WasmBlock {
    const size = roundUp(Math.max(byteLength, 1), alignment)
    const found = this.#free.find(({ start, end }) => end - start >= size) ?? this.#grow(size)
    const range = { start: found.start, end: found.start + size }
    const rest = { start: range.end, end: found.end }
    this.#free = this.#free.flatMap((free) => (free !== found ? [free] : rest.end > rest.start ? [rest] : []))
    const block = new WasmBlock(this.#memory, range.start, byteLength, () => {
      this.#forgotten.unregister(block)
      this.#release(range)
    })
    this.#forgotten.register(block, range, block)
    return block
  }

  #grow(size: number): Range {
    const { byteLength } = this.#memory.buffer
    // By an eighth at least, so that many small blocks don't mean many moves; near the limit by what is needed.
    if (!this.#tryGrow(Math.max(size, byteLength / 8)) && !this.#tryGrow(size)) {
      throw new KvasirError('out-of-memory', 'kernels', `WebAssembly memory cannot grow by ${size} bytes`)
    }
    this.#release({ start: byteLength - tailBytes, end: this.#memory.buffer.byteLength - tailBytes })
    return this.#free.find((range) => range.end - range.start >= size) as Range
  }

  #tryGrow(bytes: number): boolean {
    try {
      this.#memory.grow(Math.ceil(bytes / pageBytes))
      this.#buffers.add(this.#memory.buffer)
      return true
    } catch {
      return false
    }
  }

  #release(range: Range): void {
    const merged: Range[] = []
    for (const next of [...this.#free, range].sort((a, b) => a.start - b.start)) {
      const last = merged.at(-1)
      if (last && last.end === next.start) merged[merged.length - 1] = { start: last.start, end: next.end }
      else merged.push(next)
    }
    this.#free = merged
  }
}

/** Views are made anew when the memory has grown, for growing detaches the old ones unless the memory is shared. */
export class WasmBlock implements Memory {
  readonly byteLength: number
  readonly address: number
  readonly #memory: WebAssembly.Memory
  #release: (() => void) | undefined
  #buffer: ArrayBufferLike | undefined
  #views: Pick<Memory, 'f32' | 'f64' | 'u16' | 'u8' | 'i32'> | undefined

  constructor(memory: WebAssembly.Memory, address: number, byteLength: number, release: () => void) {
    this.#memory = memory
    this.address = address
    this.byteLength = byteLength
    this.#release = release
  }

  get f32() {
    return this.#current().f32
  }
  get f64() {
    return this.#current().f64
  }
  get u16() {
    return this.#current().u16
  }
  get u8() {
    return this.#current().u8
  }
  get i32() {
    return this.#current().i32
  }

  free(): void {
    this.#release?.()
    this.#release = undefined
  }

  #current() {
    if (!this.#release) throw usedAfterFree()
    const { buffer } = this.#memory
    if (!this.#views || this.#buffer !== buffer) {
      const length = roundUp(this.byteLength, 8)
      this.#buffer = buffer
      this.#views = {
        f32: new Float32Array(buffer, this.address, length / 4),
        f64: new Float64Array(buffer, this.address, length / 8),
        u16: new Uint16Array(buffer, this.address, length / 2),
        u8: new Uint8Array(buffer, this.address, length),
        i32: new Int32Array(buffer, this.address, length / 4),
      }
    }
    return this.#views
  }
}

function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple
}
