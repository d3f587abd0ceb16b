/** An instance of the WebAssembly kernels with its memory, and the choice of who runs a call. */
import type { CallValue, KernelArray } from './calls.ts'
import type { AttendArgs } from './contract.ts'
import type { ChunkOptions, WasmCall, WasmCalls } from './wasm-chunks.ts'
import { compile, createMemory, type WasmCode } from './wasm-code.ts'
import type { WasmEnvironment } from './wasm-environment.ts'
import { WasmFrame, WasmScratch } from './wasm-frame.ts'
import { WasmHeap } from './wasm-memory.ts'
import { type BoardExports, WasmPool } from './wasm-pool.ts'

/** `numbers`: the address of a call, `scratch`: of memory that it works in. */
interface Exports extends WebAssembly.Exports, BoardExports {
  __heap_base: WebAssembly.Global
  tile_tokens(numTokens: number, numHeads: number, numKvHeads: number, headDim: number, valueDim: number): number
  attend_scratch(numbers: number, threads: number): number
  attend(numbers: number, scratch: number): void
  weigh_scratch(numbers: number): number
  weigh(numbers: number, scratch: number): void
  seek_scratch(numbers: number, threads: number): number
  seek(numbers: number, scratch: number): void
  store(numbers: number, scratch: number): void
  turn(numbers: number, scratch: number): void
  keep(numbers: number, scratch: number): number
  rotate(numbers: number): void
  retain(numbers: number): number
  select(numbers: number, scratch: number): void
  read(data: number, count: number): number
  multiply_add(iterations: number): number
}

/**
 * Multiply-adds from which on a call is shared, and from which on it is left to the background: about a tenth of a
 * millisecond and a millisecond of one thread's work, well above what waking and telling another takes.
 */
const leastSharedWork = 1 << 19
const leastBackgroundWork = 1 << 22

export class WasmModule implements ChunkOptions {
  readonly heap: WasmHeap
  /** Lets the workers go. Holds on to nothing else, so that it can be called when the kernels are collected. */
  readonly close: () => void
  readonly #exports: Exports
  readonly #pool: WasmPool | undefined
  readonly #reasonAlone: string | undefined
  /** Of the calls that run at once. */
  readonly #frame: WasmFrame
  readonly #scratch: WasmScratch

  constructor(code: WasmCode, threads: number, environment: WasmEnvironment) {
    const { canShare } = environment
    const module = compile(code, canShare === true)
    const memory = createMemory(canShare === true)
    const { exports } = new WebAssembly.Instance(module, { env: { memory, log: Math.log } })
    this.#exports = exports as Exports
    const heap = new WasmHeap(memory, this.#exports.__heap_base.value as number)
    this.heap = heap
    this.#frame = new WasmFrame(heap)
    this.#scratch = new WasmScratch(heap)
    if (canShare === true)
      this.#pool = new WasmPool({ exports: this.#exports, module, memory, heap, threads, environment })
    else this.#reasonAlone = canShare
    const pool = this.#pool
    this.close = () => pool?.close()
  }

  /** For people: `2 threads`, or why there is but one. */
  get threads(): string {
    const { threads = 1, failure } = this.#pool ?? { failure: this.#reasonAlone }
    if (failure !== undefined) return `1 thread: ${failure}`
    return threads === 1 ? '1 thread' : `${threads} threads`
  }

  isInMemory(array: KernelArray): boolean {
    return this.heap.owns(array.buffer)
  }

  tileTokens({ numTokens, numHeads, numKvHeads, headDim, valueDim }: AttendArgs): number {
    return this.#exports.tile_tokens(numTokens, numHeads, numKvHeads, headDim, valueDim)
  }

  attend({ shared, parts, work }: WasmCalls): void {
    const pool = work >= leastSharedWork ? this.#startedPool(-1) : undefined
    const frame = this.#frame
    frame.hold(shared)
    try {
      for (const { values, outputs } of parts) {
        const numbers = frame.place(values)
        const scratch = this.#scratch.reserve(this.#exports.attend_scratch(numbers, pool?.threads ?? 1))
        if (pool) pool.attend(numbers, scratch)
        else this.#exports.attend(numbers, scratch)
        frame.copyBack(outputs)
      }
    } finally {
      frame.letGo()
    }
  }

  /** Calls in the background have frames of their own. */
  async attendAsync(calls: WasmCalls): Promise<void> {
    const pool = calls.work >= leastBackgroundWork ? this.#startedPool(0) : undefined
    if (!pool) return this.attend(calls)
    const frame = new WasmFrame(this.heap)
    const scratch = new WasmScratch(this.heap)
    try {
      frame.hold(calls.shared)
      for (const { values, outputs } of calls.parts) {
        const numbers = frame.place(values)
        await pool.attendInBackground(numbers, scratch.reserve(this.#exports.attend_scratch(numbers, pool.threads)))
        frame.copyBack(outputs)
      }
    } finally {
      frame.free()
      scratch.free()
    }
  }

  weigh({ values, outputs }: WasmCall): void {
    const numbers = this.#frame.place(values)
    this.#exports.weigh(numbers, this.#scratch.reserve(this.#exports.weigh_scratch(numbers)))
    this.#frame.copyBack(outputs)
  }

  /** @param work multiply-adds */
  seek({ values, outputs }: WasmCall, work: number): void {
    const pool = work >= leastSharedWork ? this.#startedPool(-1) : undefined
    const numbers = this.#frame.place(values)
    const scratch = this.#scratch.reserve(this.#exports.seek_scratch(numbers, pool?.threads ?? 1))
    if (pool) pool.seek(numbers, scratch)
    else this.#exports.seek(numbers, scratch)
    this.#frame.copyBack(outputs)
  }

  /** The ops that stay on the caller's thread; `retain` returns its status. */
  run(
    name: 'store' | 'turn' | 'rotate' | 'retain' | 'keep' | 'select',
    values: CallValue[],
    scratchBytes: number,
    outputs: KernelArray[],
  ): number {
    const numbers = this.#frame.place(values)
    const status = this.#exports[name](numbers, this.#scratch.reserve(scratchBytes))
    this.#frame.copyBack(outputs)
    return status ?? 0
  }

  read(data: Float32Array): number {
    const row = this.#frame.place([data])
    const [address = 0] = new Float64Array(this.heap.buffer, row, 1)
    const pool = this.#startedPool(-1)
    if (!pool) return this.#exports.read(address, data.length)
    return this.#measure(pool, address, data.length, 4 * pool.threads)
  }

  multiplyAdd(iterations: number): number {
    const pool = this.#startedPool(-1)
    if (!pool) return this.#exports.multiply_add(iterations)
    return this.#measure(pool, 0, iterations, pool.threads)
  }

  #measure(pool: WasmPool, data: number, count: number, tasks: number): number {
    const sums = this.#scratch.reserve(8 * tasks)
    pool.measure(data, count, tasks, sums)
    return new Float64Array(this.heap.buffer, sums, tasks).reduce((total, sum) => total + sum, 0)
  }

  /** The pool, once it has workers: as many as threads, or fewer by `change`. */
  #startedPool(change: -1 | 0): WasmPool | undefined {
    return this.#pool?.start(this.#pool.threads + change) ? this.#pool : undefined
  }
}
