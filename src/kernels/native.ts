/** The C++ kernels as a Node addon, on a pool of threads. Arguments are checked by the addon itself. */
import { KvasirError, type KvasirErrorCode } from '../tensor/error.ts'
import {
  attendCall,
  type CallValue,
  keepCall,
  retainCall,
  rotateCall,
  seekCall,
  selectCall,
  storeCall,
  turnCall,
  weighCall,
} from './calls.ts'
import type { AttendArgs, Kernels } from './contract.ts'
import { builtFile, howToBuild, isFile } from './files.ts'
import { environmentVariable, nodeModule } from './host.ts'
import { allocateHostMemory } from './host-memory.ts'
import { whyOtherInterface } from './interface.ts'
import { checkStatus } from './status.ts'

/** What the addon exports; `engine` is opaque. */
interface Addon {
  readonly interfaceVersion?: number
  open(threads: number, instructionSet?: string): object
  instructionSets(): string[]
  prepare(buffer: ArrayBuffer): number
  attend(engine: object, ...values: CallValue[]): void
  /** Undefined when the call was short and is done already. */
  attendAsync(engine: object, ...values: CallValue[]): Promise<void> | undefined
  weigh(engine: object, ...values: CallValue[]): void
  store(engine: object, ...values: CallValue[]): void
  turn(engine: object, ...values: CallValue[]): void
  rotate(engine: object, ...values: CallValue[]): void
  retain(engine: object, ...values: CallValue[]): number
  keep(engine: object, ...values: CallValue[]): number
  select(engine: object, ...values: CallValue[]): void
  seek(engine: object, ...values: CallValue[]): void
  read(engine: object, data: Float32Array): number
  multiplyAdd(engine: object, iterations: number): number
}

let loaded: Addon | undefined

/** The addon, or why it can't be used here. */
function readAddon(): Addon | string {
  if (loaded) return loaded
  const modules = nodeModule('node:module') as typeof import('node:module') | undefined
  if (!modules) return 'they run in Node.js only'
  // Another build of the addon, such as the one with sanitizers, can stand in for it.
  const path = environmentVariable('KVASIR_ADDON') ?? builtFile('Release', 'kvasir.node')
  if (!isFile(path)) return `the native kernels are not built (${howToBuild()})`
  let addon: Addon
  try {
    addon = modules.createRequire(import.meta.url)(path)
  } catch (error) {
    return `the native kernels do not load: ${(error as Error).message}`
  }
  const problem = whyOtherInterface('the native kernels', addon.interfaceVersion, howToBuild())
  if (problem === undefined) loaded = addon
  return problem ?? addon
}

function loadAddon(): Addon {
  const addon = readAddon()
  if (typeof addon !== 'string') return addon
  throw new KvasirError('unsupported', 'kernels', addon)
}

/** True, or why the addon can't be used here. */
export function probeNative(): true | string {
  const addon = readAddon()
  return typeof addon === 'string' ? addon : true
}

/** Instruction sets of this processor that the addon has kernels for, best first: `amx`, `avx512`, ... */
export function instructionSets(): string[] {
  return loadAddon().instructionSets()
}

export interface NativeKernels extends Kernels {
  /** Reads all of `data` on all threads: for measuring what memory gives. */
  read(data: Float32Array): number
  /** Runs fused multiply-adds on all threads and returns how many floating-point operations that was. */
  multiplyAdd(iterations: number): number
}

/** @param instructionSet one of `instructionSets()`; default the best. */
export function openNative(threads: number, instructionSet?: string): NativeKernels {
  const addon = loadAddon()
  const engine = call(() => addon.open(threads, instructionSet))
  const plural = threads === 1 ? 'thread' : 'threads'
  return {
    name: 'native',
    description: `native (${instructionSet ?? addon.instructionSets()[0]}, ${threads} ${plural})`,
    // Cache lines begin at 64 bytes; a row of K that straddles two costs twice.
    alloc: (byteLength) => allocateHostMemory(byteLength, (buffer) => addon.prepare(buffer)),
    attend: (args) => call(() => addon.attend(engine, ...attendCall(args))),
    attendAsync: oneAtATime((args) => call(() => addon.attendAsync(engine, ...attendCall(args)))),
    weigh: (args) => call(() => addon.weigh(engine, ...weighCall(args))),
    store: (args) => call(() => addon.store(engine, ...storeCall(args))),
    turn: (args) => call(() => addon.turn(engine, ...turnCall(args))),
    rotate: (args) => call(() => addon.rotate(engine, ...rotateCall(args))),
    retain: (args) => checkStatus(call(() => addon.retain(engine, ...retainCall(args)))),
    keep: (args) => checkStatus(call(() => addon.keep(engine, ...keepCall(args)))),
    select: (args) => call(() => addon.select(engine, ...selectCall(args))),
    seek: (args) => call(() => addon.seek(engine, ...seekCall(args))),
    read: (data) => addon.read(engine, data),
    multiplyAdd: (iterations) => addon.multiplyAdd(engine, iterations),
  }
}

/** What the addon refuses is a caller's mistake; what it lacks is memory or threads. */
function call<T>(run: () => T): T {
  try {
    return run()
  } catch (cause) {
    throw kernelError(cause)
  }
}

/**
 * Calls that leave the thread, one after the other: each has all threads of the engine, and the process's own pool, which
 * serves files and names too, lends one of its few threads. Short calls, which are done at once, wait with the others.
 */
function oneAtATime(start: (args: AttendArgs) => Promise<void> | undefined) {
  let background: Promise<void> | undefined
  return async (args: AttendArgs): Promise<void> => {
    while (background) await background.catch(() => undefined)
    const started = start(args)
    if (!started) return
    background = started.finally(() => {
      background = undefined
    })
    try {
      await background
    } catch (cause) {
      throw kernelError(cause)
    }
  }
}

function kernelError(cause: unknown): KvasirError {
  const { code, message } = cause as NodeJS.ErrnoException
  return new KvasirError(errorCodes[code ?? ''] ?? 'internal', 'kernels', message, { cause })
}

const errorCodes: Readonly<Record<string, KvasirErrorCode>> = {
  KVASIR_NATIVE: 'invalid-argument',
  KVASIR_MEMORY: 'out-of-memory',
}
