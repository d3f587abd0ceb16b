/** How times are taken: warm-up, then rounds; medians, since a shared machine has a long tail. */

import type { Kernels, Memory } from '../src/kernels/index.ts'
import { openNative, probeNative } from '../src/kernels/native.ts'
import { openWasm } from '../src/kernels/wasm.ts'
import { KvasirError } from '../src/tensor/error.ts'

/**
 * Median of `rounds` calls in milliseconds, after one that is not counted. Rounds end early after `limitMs` in all, but
 * not before the third. Where the first call alone takes longer than `limitMs`, its time is the result.
 */
export async function medianMs(run: () => void | Promise<void>, rounds = 15, limitMs = 4000): Promise<number> {
  const warmUp = performance.now()
  await run()
  const firstMs = performance.now() - warmUp
  if (firstMs > limitMs) return firstMs
  const times: number[] = []
  const started = performance.now()
  while (times.length < rounds && (times.length < 3 || performance.now() - started < limitMs)) {
    const before = performance.now()
    await run()
    times.push(performance.now() - before)
  }
  return median(times)
}

/** A figure of several rounds. */
export interface Spread {
  readonly median: number
  readonly low: number
  readonly high: number
}

export function spreadOf(values: readonly number[]): Spread {
  return { median: median(values), low: Math.min(...values), high: Math.max(...values) }
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
export function openMeasurable(backend: MeasurableName, threads: number, instructionSet?: string): MeasurableKernels {
  if (backend === 'wasm') return openWasm(threads)
  const probed = probeNative()
  if (probed !== true) throw new KvasirError('unsupported', 'bench', probed)
  return openNative(threads, instructionSet)
}

/** What the machine gives right now: bytes read from memory and fused multiply-adds, with the backend's own threads. */
export interface Limits {
  readonly readGbPerSecond: number
  readonly fmaGflops: number
}

/** As many as the case reads, so that they come from where its own come from: a cache or memory. */
const [leastBytes, mostBytes] = [2 ** 20, 2 ** 28]
const budgetMs = 200

/** Measures limits next to the thing itself, so that both see the same weather. */
export class LimitProbe {
  readonly #kernels: MeasurableKernels
  readonly #memory: Memory

  constructor(kernels: MeasurableKernels, bytes: number) {
    this.#kernels = kernels
    this.#memory = kernels.alloc(Math.min(mostBytes, Math.max(leastBytes, 4 * Math.ceil(bytes / 4))))
    this.#memory.f32.fill(1)
  }

  async measure(): Promise<Limits> {
    const { f32 } = this.#memory
    const readMs = await medianMs(() => void this.#kernels.read(f32), 9, budgetMs)
    let flops = 0
    const multiplyAdd = () => {
      flops = this.#kernels.multiplyAdd(500_000)
    }
    const fmaMs = await medianMs(multiplyAdd, 9, budgetMs)
    return { readGbPerSecond: f32.byteLength / readMs / 1e6, fmaGflops: flops / fmaMs / 1e6 }
  }

  free(): void {
    this.#memory.free()
  }
}
