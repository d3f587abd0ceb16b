/** Seeking on several threads of WebAssembly. That it finds what it should is tested with all backends in rows.test.ts. */
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { type SeekShape, seekCase } from './cases/seek.ts'
import type { Kernels, SeekArgs } from './contract.ts'
import { openWasm, probeWasm } from './wasm.ts'
import { hostEnvironment, type WasmEnvironment } from './wasm-environment.ts'

const sizes = { numHeads: 12, numKvHeads: 3, headDim: 64, capacity: 5000, most: 40 } as const
const shapes: SeekShape[] = [
  { ...sizes, name: 'rows of several tasks a head', numRows: 4700, storage: 'int8' },
  { ...sizes, name: 'ties', numRows: 3100, storage: 'f16', hasTies: true },
]
const short: SeekShape = { ...sizes, name: 'short', numRows: 20, storage: 'int8' }

const isBuilt = probeWasm() === true

const cases = new Map<SeekShape, SeekArgs>()

function found(kernels: Kernels, shape: SeekShape): number[][] {
  const args = cases.get(shape) ?? seekCase.create(shape, 3)
  cases.set(shape, args)
  const { rows, lengths, most } = args
  rows.fill(-1)
  kernels.seek(args)
  return Array.from(lengths, (length, k) => Array.from(rows.subarray(k * most, k * most + length)))
}

/** Kernels whose workers are counted. */
function openCounting(threads: number): { kernels: Kernels; started: () => number } {
  let started = 0
  const startWorker: WasmEnvironment['startWorker'] = (...start) => {
    started++
    return hostEnvironment.startWorker(...start)
  }
  return { kernels: openWasm(threads, undefined, { ...hostEnvironment, startWorker }), started: () => started }
}

test.skipIf(!isBuilt).each([2, 3])('%i threads find what one finds, however often', async (threads) => {
  const [alone, { kernels, started }] = [openWasm(1), openCounting(threads)]
  expect(found(kernels, short)).toEqual(found(alone, short))
  expect(started()).toBe(0) // too little to share
  for (const shape of shapes) {
    const expected = found(alone, shape)
    expect(expected.every((rows) => rows.length === sizes.most)).toBe(true)
    for (let n = 0; n < 30; n++) {
      expect(found(kernels, shape)).toEqual(expected)
      if (n === 0) await sleep(200) // workers take a moment to be there
    }
  }
  expect(started()).toBe(threads - 1)
})
