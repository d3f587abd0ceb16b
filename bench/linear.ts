/**
 * One decode step with the linear cache beside one with a cache that keeps everything, as the text grows.
 *
 * - `full`: dynamic mask attention over the whole history: at each step all scores are ranked anew, the best W gathered
 *   and attended to. Same result as the linear cache. The baseline is our own and as fast as we can make it: it reads
 *   no K or V outside the window.
 * - `dense`: attention over the whole history without a window, for comparison: what a model without importance pays.
 */
import { BoundedCache } from '../src/cache/bounded-cache.ts'
import type { LayerCache, LayerInput } from '../src/cache/contract.ts'
import { FullCache } from '../src/cache/full-cache.ts'
import { createRandom, normal } from '../src/kernels/cases.ts'
import { type BackendName, type Kernels, openKernels, type StorageType } from '../src/kernels/index.ts'
import { KvasirError } from '../src/tensor/error.ts'
import { medianMs } from './measure.ts'

export interface LinearBenchOptions {
  readonly tokens?: readonly number[]
  readonly window?: number
  readonly heads?: number
  readonly headDim?: number
  readonly dtype?: StorageType
  readonly backend?: BackendName
  readonly threads?: number
  readonly signal?: AbortSignal
  /** After each measurement, three for each entry of `tokens`. */
  readonly onProgress?: () => void
}

export interface LinearBenchRow {
  readonly tokens: number
  readonly window: number
  readonly fullBytes: number
  readonly linearBytes: number
  readonly fullMs: number
  readonly denseMs: number
  readonly linearMs: number
  /** fullMs / linearMs */
  readonly speedup: number
  /** denseMs / linearMs */
  readonly speedupOverDense: number
}

interface Setup {
  readonly kernels: Kernels
  readonly window: number
  readonly heads: number
  readonly headDim: number
  readonly dtype: StorageType
}

const chunk = 1024
const timedSteps = 26

export async function benchLinear(options: LinearBenchOptions = {}): Promise<LinearBenchRow[]> {
  const { tokens = [1024, 2048, 4096, 8192, 16384, 32768, 65536] } = options
  const setup = createSetup(options)
  const { window } = setup
  // One cache at a time: a full one of 64K tokens is 2 GiB.
  const linear = await stepTimes(createLinear(setup), setup, tokens, options)
  const full = await stepTimes(new FullCache({ ...layerConfig(setup), window }, true), setup, tokens, options)
  const dense = await stepTimes(new FullCache(layerConfig(setup), true), setup, tokens, options)
  return tokens.map((count, i) => {
    const [linearMs, fullMs, denseMs] = [linear.ms[i]!, full.ms[i]!, dense.ms[i]!]
    const bytes = { fullBytes: full.bytes[i]!, linearBytes: linear.bytes[i]! }
    const times = { fullMs, denseMs, linearMs, speedup: fullMs / linearMs, speedupOverDense: denseMs / linearMs }
    return { tokens: count, window, ...bytes, ...times }
  })
}

/** Fills the cache up to each of `counts` in turn and takes the time of a step there. */
async function stepTimes(
  cache: BoundedCache | FullCache,
  setup: Setup,
  counts: readonly number[],
  { signal, onProgress }: LinearBenchOptions,
): Promise<{ ms: number[]; bytes: number[] }> {
  const ms: number[] = []
  const bytes: number[] = []
  let seen = 0
  for (const count of counts) {
    // The timed steps take the last tokens up to the count.
    while (seen < count - timedSteps) {
      if (signal?.aborted) throw new KvasirError('aborted', 'bench', 'interrupted')
      const numTokens = Math.min(chunk, count - timedSteps - seen)
      cache.append(createTokens(setup, seen, numTokens))
      seen += numTokens
    }
    ms.push(await stepMs(setup, cache))
    seen = cache.info().seenTokens
    const info = cache.info()
    bytes.push(cache instanceof FullCache ? info.fullBytes : info.bytes)
    onProgress?.()
  }
  cache.dispose()
  return { ms, bytes }
}

export interface FlatnessResult {
  readonly window: number
  /** A step when the window has just filled, and after a million tokens. */
  readonly atWindowMs: number
  readonly atMillionMs: number
  readonly ratio: number
}

/** The time of a step with the linear cache after W tokens and after 1,048,576: it must not grow. */
export async function benchFlatness(options: LinearBenchOptions = {}): Promise<FlatnessResult> {
  const setup = createSetup(options)
  const { window, heads } = setup
  const young = createLinear(setup)
  const old = createLinear(setup)
  const random = createRandom(1)
  const input = createTokens(setup, 0, chunk)
  for (let seen = 0; seen < window; seen += chunk) young.append(input)
  for (let seen = 0; seen < 1 << 20; seen += chunk) {
    if (options.signal?.aborted) throw new KvasirError('aborted', 'bench', 'interrupted')
    old.append({ ...input, importance: normal(random, chunk * heads) })
  }
  // In turns, so that both see the same weather.
  const times: [number, number][] = []
  for (let round = 0; round < 7; round++) times.push([await stepMs(setup, young), await stepMs(setup, old)])
  const middle = (index: 0 | 1) => times.map((pair) => pair[index]).sort((a, b) => a - b)[3]!
  return { window, atWindowMs: middle(0), atMillionMs: middle(1), ratio: middle(1) / middle(0) }
}

function layerConfig({ kernels, heads, headDim, dtype }: Setup) {
  return { kernels, kvDtype: dtype, shape: { numHeads: heads, numKvHeads: heads, headDim, valueDim: headDim } }
}

function createLinear(setup: Setup): BoundedCache {
  return new BoundedCache(
    { ...layerConfig(setup), window: setup.window, sinks: 0, recent: 0, rankBy: 'importance' },
    true,
  )
}

function createSetup({
  window = 2048,
  heads = 32,
  headDim = 128,
  dtype = 'f32',
  backend,
  threads,
}: LinearBenchOptions): Setup {
  return { kernels: openKernels({ backend, threads }), window, heads, headDim, dtype }
}

function stepMs(setup: Setup, cache: LayerCache): Promise<number> {
  const input = createTokens(setup, 1 << 20, 1)
  const output = new Float32Array(setup.heads * setup.headDim)
  return medianMs(() => cache.attend(input, output), timedSteps - 1, 3000)
}

function createTokens({ heads, headDim }: Setup, seed: number, numTokens: number): LayerInput {
  const random = createRandom(seed)
  const uniform = (length: number) => Float32Array.from({ length }, () => 2 * random() - 1)
  const size = numTokens * heads * headDim
  return {
    ...{ numTokens, query: uniform(size), key: uniform(size), value: uniform(size) },
    importance: normal(random, numTokens * heads),
  }
}
