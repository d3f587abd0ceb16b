/** How times are taken: warm-up, then rounds; medians, since a shared machine has a long tail. */

import type { Kernels, Memory } from '../src/kernels/index.ts'
import { openNative, probeNative } from '../src/kernels/native.ts'
import { openWasm } from '../src/kernels/wasm.ts'
import { KvasirError } from '../src/tensor/error.ts'

/** Median of `rounds` calls in milliseconds, after one that is not counted. Rounds end early after `limitMs` in all. */
export async function medianMs(run: () => void | Promise<void>, rounds = 15, limitMs = 4000): Promise<number> {
  await run()
  const times: number[] = []
  const started = performance.now()
  while (times.length < rounds && (times.length < 3 || performance.now() - started < limitMs)) {
    const before = performance.now()
    await run()
    times.push(performance.now() - before)
  }
  return median(times)
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

/** A backend that can also say what the machine gives at best. */
export interface MeasurableKernels extends Kernels {
  read(data: Float32Array): number
  multiplyAdd(iterations: number): number
}

export type MeasurableName = 'native' | 'wasm'

/** @throws KvasirError `unsupported` when the native addon is asked for and not there */
export function openMeasurable(backend: MeasurableName, threads: number): MeasurableKernels {
  if (backend === 'wasm') return openWasm()
  const probed = probeNative()
  if (probed !== true) throw new KvasirError('unsupported', 'bench', probed)
  return openNative(threads)
}

/** What the machine gives right now: bytes read from memory and fused multiply-adds, with the backend's own threads. */
export interface Limits {
  readonly readGbPerSecond: number
  readonly fmaGflops: number
}

/** Far more than caches hold on most machines, and the size of the largest decode case. */
const readBytes = 128 << 20

/** Measures limits next to the thing itself, so that both see the same weather. */
export class LimitProbe {
  readonly #kernels: MeasurableKernels
  readonly #memory: Memory

  constructor(kernels: MeasurableKernels) {
    this.#kernels = kernels
    this.#memory = kernels.alloc(readBytes)
    this.#memory.f32.fill(1)
  }

  /** `bytes`: how much is read, at most 128 MiB. Small amounts come from cache, as they do in the case itself. */
  async measure(bytes = readBytes): Promise<Limits> {
    const count = Math.min(readBytes, Math.max(1 << 20, bytes)) / 4
    const readMs = await medianMs(() => void this.#kernels.read(this.#memory.f32.subarray(0, count)), 9, 500)
    let flops = 0
    const fmaMs = await medianMs(
      () => {
        flops = this.#kernels.multiplyAdd(500_000)
      },
      9,
      500,
    )
    return { readGbPerSecond: (count * 4) / readMs / 1e6, fmaGflops: flops / fmaMs / 1e6 }
  }

  free(): void {
    this.#memory.free()
  }
}
