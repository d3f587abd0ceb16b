/** What differs between Node.js and a page for threads: how a worker is started and whether this thread may sleep. */
import { nodeModule } from './host.ts'

/** What a worker needs; all of it can be sent to one. */
export interface WorkerStart {
  readonly module: WebAssembly.Module
  readonly memory: WebAssembly.Memory
  /** Where its stack begins, growing down. */
  readonly stack: number
  /** Its number; 0 is the thread that owns the kernels. */
  readonly thread: number
  /** Where it writes why it breaks off, in UTF-8 up to a zero: a caller who waits gets no messages. */
  readonly reason: number
}

/** Bytes of memory for a reason, its zero included. */
export const reasonBytes = 256

export interface WorkerEvents {
  /** It is ready (-1), or it has finished the background call of a slot. */
  told(slot: number): void
  /** It will not do anything any more. */
  ended(reason: string): void
}

export interface WorkerHandle {
  /** Whether the process has to wait for it. Workers start as those that it need not wait for. */
  keepAlive(isBusy: boolean): void
}

export interface WasmEnvironment {
  /** True, or why workers can't be had. */
  readonly canShare: true | string
  /** The main thread of a page must not. */
  readonly maySleep: boolean
  startWorker(start: WorkerStart, events: WorkerEvents): WorkerHandle
}

/**
 * A worker's whole program, as text so that no loader has to find it. It sleeps in `serve` while there is nothing to
 * do, so it takes no messages but the first.
 */
export const workerSource = `
const serve = ({ module, memory, stack, thread, reason }, tell) => {
  const { exports } = new WebAssembly.Instance(module, { env: { memory, log: Math.log } })
  // Growth that falls into the start of a worker can be missed (V8 of Node.js 20, about once in a thousand such starts):
  // its instance then takes what was added for out of bounds. Growing by nothing looks once more.
  memory.grow(0)
  exports.__stack_pointer.value = stack
  tell(-1)
  try {
    for (let slot = exports.serve(thread); slot >= 0; slot = exports.serve(thread)) tell(slot)
  } catch (error) {
    const text = new TextEncoder().encode(String(error)).subarray(0, ${reasonBytes - 1})
    new Uint8Array(memory.buffer).set(text, reason)
    exports.__stack_pointer.value = stack
    const slot = exports.abandon(thread)
    if (slot >= 0) tell(slot)
    throw error
  }
}
const threads = globalThis.process?.getBuiltinModule?.('node:worker_threads')
if (threads) serve(threads.workerData, (slot) => threads.parentPort.postMessage(slot))
else {
  onmessage = ({ data }) => {
    serve(data, (slot) => postMessage(slot))
    close()
  }
}
`

export const hostEnvironment: WasmEnvironment = {
  get canShare() {
    if (typeof SharedArrayBuffer === 'undefined') return 'no shared memory: the page is not cross-origin isolated'
    return nodeModule('node:worker_threads') || typeof Worker !== 'undefined' ? true : 'no workers'
  },
  get maySleep() {
    try {
      return Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 1) === 'not-equal'
    } catch {
      return false
    }
  },
  startWorker: (start, events) => (nodeModule('node:worker_threads') ? startThread : startWebWorker)(start, events),
}

function startThread(workerData: WorkerStart, { told, ended }: WorkerEvents): WorkerHandle {
  const threads = nodeModule('node:worker_threads') as typeof import('node:worker_threads')
  // Without the options of this process: a loader of TypeScript, say, would only take time.
  const worker = new threads.Worker(workerSource, { eval: true, workerData, execArgv: [], name: 'kvasir' })
  worker.on('message', told)
  worker.on('error', (error) => ended(error.message))
  worker.on('exit', () => ended('it has exited'))
  worker.unref()
  return { keepAlive: (isBusy) => (isBusy ? worker.ref() : worker.unref()) }
}

function startWebWorker(start: WorkerStart, { told, ended }: WorkerEvents): WorkerHandle {
  const url = URL.createObjectURL(new Blob([workerSource], { type: 'text/javascript' }))
  const worker = new Worker(url, { name: 'kvasir' })
  worker.onmessage = ({ data }) => {
    URL.revokeObjectURL(url)
    told(data as number)
  }
  worker.onerror = (event) => ended(event.message || 'its script was refused')
  worker.postMessage(start)
  return { keepAlive() {} }
}
