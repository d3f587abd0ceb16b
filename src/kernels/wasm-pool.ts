/**
 * The workers of a WebAssembly module with shared memory. They find their tasks on a board in that memory
 * (native/bindings/wasm_board.h); this file starts them, posts jobs and learns what was finished in the background.
 */
import { KvasirError } from '../tensor/error.ts'
import type { Memory } from './contract.ts'
import { reasonBytes, type WasmEnvironment, type WorkerHandle } from './wasm-environment.ts'
import type { WasmBlock, WasmHeap } from './wasm-memory.ts'

export interface BoardExports {
  open_board(threads: number): void
  post_attend(slot: number, numbers: number, scratch: number): void
  post_seek(numbers: number, scratch: number): void
  post_measurement(data: number, count: number, tasks: number, sums: number): void
  complete(slot: number, maySleep: boolean): number
  job_state(slot: number): number
  abandon(thread: number): number
  close_board(): void
}

export interface WasmPoolOptions {
  readonly exports: BoardExports
  readonly module: WebAssembly.Module
  readonly memory: WebAssembly.Memory
  readonly heap: WasmHeap
  /** The caller's included. In the background as many workers, so that it stays free. */
  readonly threads: number
  readonly environment: WasmEnvironment
}

interface BackgroundJob {
  readonly numbers: number
  readonly scratch: number
  readonly resolve: () => void
  readonly reject: (error: KvasirError) => void
}

const stackBytes = 131072
const [isRunning, hasFailed] = [0, 2]
/** Slot 0 is for calls that are waited for. */
const backgroundSlots = Array.from({ length: 15 }, (_, i) => i + 1)

export class WasmPool {
  readonly threads: number
  readonly #options: WasmPoolOptions
  readonly #maySleep: boolean
  /** By thread; `undefined` for one that has ended. */
  readonly #workers: (WorkerHandle | undefined)[] = []
  /** Held on to, since a block that nobody holds is given back. */
  readonly #stacks: Memory[] = []
  readonly #reason: WasmBlock
  readonly #running = new Map<number, BackgroundJob>()
  readonly #waiting: BackgroundJob[] = []
  #failure: string | undefined
  #isClosed = false

  constructor(options: WasmPoolOptions) {
    this.#options = options
    this.threads = options.threads
    this.#maySleep = options.environment.maySleep
    this.#reason = options.heap.alloc(reasonBytes)
    options.exports.open_board(options.threads)
  }

  /** Why there are fewer workers than there should be. */
  get failure(): string | undefined {
    return this.#failure
  }

  /** Whether there are others to share with. They are started on the first call that is large enough to ask. */
  start(workers: number): boolean {
    while (this.#workers.length < workers && this.#failure === undefined) this.#startWorker(this.#workers.length + 1)
    return this.#workers.some((worker) => worker !== undefined)
  }

  /** Runs a placed call on the caller's thread and the workers. */
  attend(numbers: number, scratch: number): void {
    this.#options.exports.post_attend(0, numbers, scratch)
    this.#complete(0)
  }

  /** As `attend`. */
  seek(numbers: number, scratch: number): void {
    this.#options.exports.post_seek(numbers, scratch)
    this.#complete(0)
  }

  /** Measures on all threads: `data` is an address, 0 for multiply-adds; one sum of f64 a task is left at `sums`. */
  measure(data: number, count: number, tasks: number, sums: number): void {
    this.#options.exports.post_measurement(data, count, tasks, sums)
    this.#complete(0)
  }

  /** Runs a placed call on the workers alone. */
  attendInBackground(numbers: number, scratch: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ numbers, scratch, resolve, reject })
      this.#postWaiting()
    })
  }

  /** Lets the workers go once what runs in the background is done. */
  close(): void {
    this.#isClosed = true
    if (this.#running.size === 0) this.#options.exports.close_board()
  }

  #startWorker(thread: number): void {
    const { module, memory, heap, environment } = this.#options
    const stack = heap.alloc(stackBytes)
    this.#stacks.push(stack)
    const ended = (reason: string) => this.#end(thread, reason)
    try {
      const start = { module, memory, stack: stack.address + stackBytes, thread, reason: this.#reason.address }
      this.#workers.push(environment.startWorker(start, { told: (slot) => this.#finish(slot), ended }))
    } catch (error) {
      this.#failure = (error as Error).message
    }
  }

  #postWaiting(): void {
    for (const slot of backgroundSlots) {
      if (this.#running.has(slot)) continue
      const job = this.#waiting.shift()
      if (!job) break
      this.#running.set(slot, job)
      this.#options.exports.post_attend(slot, job.numbers, job.scratch)
    }
    for (const worker of this.#workers) worker?.keepAlive(this.#running.size > 0)
    if (this.#workers.every((worker) => worker === undefined)) this.#completeAlone()
  }

  /** What was posted and has no worker left to do it is done here. */
  #completeAlone(): void {
    for (const slot of [...this.#running.keys()]) {
      this.#options.exports.complete(slot, this.#maySleep)
      this.#finish(slot)
    }
  }

  #finish(slot: number): void {
    const job = this.#running.get(slot)
    if (!job) return
    this.#running.delete(slot)
    if (this.#options.exports.job_state(slot) === hasFailed) job.reject(this.#brokenOff())
    else job.resolve()
    this.#postWaiting()
    if (this.#isClosed) this.close()
  }

  /** What the worker was at is lost, the rest goes on with the others. */
  #end(thread: number, reason: string): void {
    if (!this.#workers[thread - 1] || (this.#isClosed && this.#running.size === 0)) return
    this.#workers[thread - 1] = undefined
    this.#failure ??= reason
    this.#finish(this.#options.exports.abandon(thread))
    this.#postWaiting()
  }

  /** Nothing may be left of a call that breaks off, on this thread or another, before the next one is posted. */
  #complete(slot: number): void {
    const { exports } = this.#options
    for (let error: unknown; ; ) {
      try {
        if (exports.complete(slot, this.#maySleep) === hasFailed) throw error ?? this.#brokenOff()
        return
      } catch (caught) {
        if (exports.job_state(slot) !== isRunning) throw error ?? caught
        error = caught
        exports.abandon(0)
      }
    }
  }

  #brokenOff(): KvasirError {
    const bytes = this.#reason.u8.slice(0, reasonBytes)
    const reason = new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)))
    const message = `a worker broke off in the middle of a call${reason && `: ${reason}`}`
    return new KvasirError('internal', 'kernels', message)
  }
}
