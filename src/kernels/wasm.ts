/** The C++ kernels as WebAssembly, on the caller's thread and, where memory can be shared, on workers. */

import type { KernelArray } from './calls.ts'
import { keepCall, retainCall, rotateCall, seekCall, selectCall, storeCall, turnCall } from './calls.ts'
import { checkAttend, checkWeigh } from './check-attend.ts'
import { checkKeep, checkRetain, checkRotate, checkSelect, checkStore, checkTurn } from './check-rows.ts'
import { checkSeek } from './check-seek.ts'
import type { Kernels, RetainArgs, RowTarget } from './contract.ts'
import { checkStatus } from './status.ts'
import { attendCalls, weighCallOf } from './wasm-chunks.ts'
import { readCode, type WasmCode } from './wasm-code.ts'
import { hostEnvironment, type WasmEnvironment } from './wasm-environment.ts'
import { WasmModule } from './wasm-module.ts'

/** True, or why WebAssembly can't be used here. */
export function probeWasm(): true | string {
  const code = readCode()
  return typeof code === 'string' ? code : true
}

export interface WasmKernels extends Kernels {
  /** Reads all of `data` on all threads: for measuring what memory gives. */
  read(data: Float32Array): number
  /** Runs multiply-adds on all threads and returns how many floating-point operations that was. */
  multiplyAdd(iterations: number): number
}

/** When the kernels are collected, their workers may go. */
const forgotten = new FinalizationRegistry<() => void>((close) => close())

/**
 * @param threads the caller's included; fewer serve where memory or workers can't be had, and `description` says why
 * @param code as `fetchCode` gives it in a page (default: what is in build/wasm)
 */
export function openWasm(
  threads = 1,
  code = readCode() as WasmCode,
  environment: WasmEnvironment = hostEnvironment,
): WasmKernels {
  const module = new WasmModule(code, threads, environment)
  const kernels: WasmKernels = {
    name: 'wasm',
    get description() {
      return `wasm (${code.label}, ${module.threads})`
    },
    alloc: (byteLength) => module.heap.alloc(byteLength),
    attend(args) {
      checkAttend(args)
      if (args.numTokens > 0) module.attend(attendCalls(args, module))
    },
    async attendAsync(args) {
      checkAttend(args)
      if (args.numTokens === 0) return
      await module.attendAsync(attendCalls(args, module))
    },
    weigh(args) {
      checkWeigh(args)
      if (args.numTokens > 0) module.weigh(weighCallOf(args))
    },
    store(args) {
      checkStore(args)
      module.run('store', storeCall(args), widest(args.targets) * 4, writtenTo(args.targets))
    },
    turn(args) {
      checkTurn(args)
      module.run('turn', turnCall(args), args.headDim * 4 + 16, written(args.target))
    },
    rotate(args) {
      checkRotate(args)
      module.run('rotate', rotateCall(args), 0, written(args.vectors))
    },
    retain(args) {
      checkRetain(args)
      checkStatus(module.run('retain', retainCall(args), 0, writtenByRetain(args)))
    },
    keep(args) {
      checkKeep(args)
      const outputs = [...writtenByRetain(args), ...writtenTo(args.targets)]
      checkStatus(module.run('keep', keepCall(args), widest(args.targets) * 4, outputs))
    },
    select(args) {
      checkSelect(args)
      module.run('select', selectCall(args), args.numRows * 8, written(args.rows, args.lengths))
    },
    seek(args) {
      checkSeek(args)
      const work = 2 * args.numRows * args.numHeads * args.headDim
      module.seek({ values: seekCall(args), outputs: written(args.rows, args.lengths) }, work)
    },
    read: (data) => module.read(data),
    multiplyAdd: (iterations) => module.multiplyAdd(iterations),
  }
  forgotten.register(kernels, module.close)
  return kernels
}

function written(...arrays: (KernelArray | undefined)[]): KernelArray[] {
  return arrays.filter((array) => array !== undefined)
}

/** The widest row. */
function widest(targets: readonly RowTarget[]): number {
  return targets.reduce((most, { headDim }) => Math.max(most, headDim), 0)
}

function writtenTo(targets: readonly RowTarget[]): KernelArray[] {
  return targets.map(({ target }) => target)
}

function writtenByRetain(args: RetainArgs): KernelArray[] {
  const { kept, rowDeaths, tokenDeaths, counts, tokens, slots, leftPositions, leftScores } = args
  const state = [kept.scores, kept.positions, kept.lengths, kept.heap, kept.heapLengths, kept.accepted, kept.ring]
  return written(...state, rowDeaths, tokenDeaths, counts, tokens, slots, leftPositions, leftScores)
}
