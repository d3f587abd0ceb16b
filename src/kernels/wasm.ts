/**
 * The C++ kernels as WebAssembly, on the caller's thread. Arrays that already lie in the module's memory (caches) are
 * used in place; others (activations) are copied in, and copied back when the call writes them.
 */
import { existsSync, readFileSync } from 'node:fs'
import { attendCall, type CallValue, type KernelArray, retainCall, rotateCall, selectCall, storeCall } from './calls.ts'
import { checkAttend, checkRetain, checkRotate, checkSelect, checkStore, storedRows } from './check-arguments.ts'
import type { AttendArgs, Kernels, KeyValueSegment, Memory, RetainArgs } from './contract.ts'
import { builtFile } from './files.ts'
import { checkStatus } from './status.ts'
import { WasmHeap } from './wasm-memory.ts'

interface Exports extends WebAssembly.Exports {
  memory: WebAssembly.Memory
  __heap_base: WebAssembly.Global
  attend_scratch(numbers: number): number
  attend(numbers: number, scratch: number): void
  store(numbers: number, scratch: number): void
  rotate(numbers: number): void
  retain(numbers: number): number
  select(numbers: number, scratch: number): void
  read(data: number, count: number): number
  multiply_add(iterations: number): number
}

/** Best first: relaxed SIMD has a fused multiply-add. */
const variants = [
  { file: builtFile('wasm', 'kvasir-relaxed.wasm'), label: 'relaxed SIMD' },
  { file: builtFile('wasm', 'kvasir.wasm'), label: 'SIMD' },
] as const

/** True, or why WebAssembly can't be used here. */
export function probeWasm(): true | string {
  if (!variants.every(({ file }) => existsSync(file))) return 'the WebAssembly kernels are not built (npm run wasm)'
  return findVariant() ? true : 'this runtime has no WebAssembly SIMD'
}

/** The feature test: a runtime without relaxed SIMD does not validate the module that uses it. */
function findVariant() {
  for (const { file, label } of variants) {
    const bytes = readFileSync(file)
    if (WebAssembly.validate(bytes)) return { bytes, label }
  }
  return undefined
}

export interface WasmKernels extends Kernels {
  read(data: Float32Array): number
  multiplyAdd(iterations: number): number
}

export function openWasm(): WasmKernels {
  const { bytes, label } = findVariant() as { bytes: Buffer<ArrayBuffer>; label: string }
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(bytes), { env: { log: Math.log } })
  const module = new WasmModule(exports as Exports)
  const attend = (args: AttendArgs): void => {
    checkAttend(args)
    if (args.numTokens > 0) module.attend(attendCall(args, describeSegment(args)), written(args.output, args.lse))
  }
  return {
    name: 'wasm',
    description: `wasm (${label}, 1 thread)`,
    alloc: (byteLength) => module.heap.alloc(byteLength),
    attend,
    attendAsync: async (args) => attend(args),
    store(args) {
      checkStore(args)
      module.scratched('store', storeCall(args), args.headDim * 4, written(args.target))
    },
    rotate(args) {
      checkRotate(args)
      module.run((numbers) => module.exports.rotate(numbers), rotateCall(args), written(args.vectors))
    },
    retain(args) {
      checkRetain(args)
      checkStatus(module.run((numbers) => module.exports.retain(numbers), retainCall(args), writtenByRetain(args)))
    },
    select(args) {
      checkSelect(args)
      module.scratched('select', selectCall(args), args.numRows * 8, written(args.rows, args.lengths))
    },
    read: (data) => module.read(data),
    multiplyAdd: (iterations) => module.exports.multiply_add(iterations),
  }
}

/** Whether the mask is of bytes, and how many storage rows a head has. */
const describeSegment = (args: AttendArgs) => (segment: KeyValueSegment) => [
  segment.mask?.values instanceof Uint8Array,
  segment.pages || segment.layout === 'shared' ? storedRows(args, segment) : segment.capacity,
]

function written(...arrays: (KernelArray | undefined)[]): KernelArray[] {
  return arrays.filter((array) => array !== undefined)
}

function writtenByRetain({ kept, rowDeaths, tokenDeaths, counts, tokens, slots }: RetainArgs): KernelArray[] {
  const state = [kept.scores, kept.positions, kept.lengths, kept.heap, kept.heapLengths, kept.accepted, kept.ring]
  return written(...state, rowDeaths, tokenDeaths, counts, tokens, slots)
}

const numbersBytes = 8 * 160

/** A value of a call as the module takes it: a number (arrays of its memory: their address), or an array to copy in. */
type Resolved = number | KernelArray

/** An instance with the scratch memory of its calls: one block that grows to the largest call. */
class WasmModule {
  readonly exports: Exports
  readonly heap: WasmHeap
  #scratch: Memory & { readonly address: number }
  /** Where the copies of the current call lie. */
  readonly #copies = new Map<KernelArray, number>()

  constructor(exports: Exports) {
    this.exports = exports
    this.heap = new WasmHeap(exports.memory, exports.__heap_base.value as number)
    this.#scratch = this.heap.alloc(65536)
  }

  attend(values: CallValue[], outputs: KernelArray[]): void {
    const resolved = this.#resolve(values)
    const needed = this.exports.attend_scratch(this.#place(resolved, 0))
    const numbers = this.#place(resolved, needed)
    this.exports.attend(numbers, this.#scratch.address + usedBytes(resolved))
    this.#copyBack(outputs)
  }

  scratched(name: 'store' | 'select', values: CallValue[], scratchBytes: number, outputs: KernelArray[]): void {
    const resolved = this.#resolve(values)
    this.exports[name](this.#place(resolved, scratchBytes), this.#scratch.address + usedBytes(resolved))
    this.#copyBack(outputs)
  }

  run<T>(call: (numbers: number) => T, values: CallValue[], outputs: KernelArray[]): T {
    const result = call(this.#place(this.#resolve(values), 0))
    this.#copyBack(outputs)
    return result
  }

  read(data: Float32Array): number {
    const { length } = data
    const [resolved] = this.#resolve([data])
    if (typeof resolved === 'number') return this.exports.read(resolved, length)
    this.#place([data], 0)
    return this.exports.read(this.#copies.get(data) as number, length)
  }

  /** Done once a call, before anything can grow the memory and detach the arrays in it. */
  #resolve(values: CallValue[]): Resolved[] {
    return values.map((value) => {
      if (typeof value !== 'object') return Number(value ?? 0)
      return value.buffer === this.exports.memory.buffer ? value.byteOffset : value
    })
  }

  /** Writes the call to scratch, with room for `extra` bytes behind it, and returns the address of its numbers. */
  #place(values: readonly Resolved[], extra: number): number {
    const needed = usedBytes(values) + extra
    if (needed > this.#scratch.byteLength) {
      const grown = this.heap.alloc(Math.ceil(needed / 65536) * 65536)
      this.#scratch.free()
      this.#scratch = grown
    }
    const { address } = this.#scratch
    const numbers = new Float64Array(this.exports.memory.buffer, address, numbersBytes / 8)
    let at = address + numbersBytes
    this.#copies.clear()
    for (const [i, value] of values.entries()) {
      if (typeof value === 'number') {
        numbers[i] = value
        continue
      }
      this.#view(value, at).set(value)
      this.#copies.set(value, at)
      numbers[i] = at
      at += padded(value.byteLength)
    }
    return address
  }

  #copyBack(outputs: KernelArray[]): void {
    for (const array of outputs) {
      const address = this.#copies.get(array)
      if (address !== undefined) array.set(this.#view(array, address))
    }
    this.#copies.clear()
  }

  #view(like: KernelArray, address: number): KernelArray {
    const View = like.constructor as new (buffer: ArrayBuffer, offset: number, length: number) => KernelArray
    return new View(this.exports.memory.buffer, address, like.length)
  }
}

/** Bytes of scratch that the numbers and copies of a call take. */
function usedBytes(values: readonly Resolved[]): number {
  return values.reduce<number>((sum, value) => {
    return typeof value === 'number' ? sum : sum + padded(value.byteLength)
  }, numbersBytes)
}

function padded(bytes: number): number {
  return Math.ceil(bytes / 64) * 64
}
