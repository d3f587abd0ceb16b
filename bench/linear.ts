/**
 * One decode step with the linear cache beside one with a cache that keeps everything, as the text grows.
 *
 * - `full`: dynamic mask attention over the whole history: at each step all scores are ranked anew, the best W gathered
 *   and attended to. Same result as the linear cache. The baseline is our own and as fast as we can make it: it reads
 *   no K or V outside the window.
 * - `dense`: attention over the whole history without a window, for comparison: what a model without importance pays.
 */
import { BoundedCache } from '../src/cache/bounded/bounded-cache.ts'
import type { LayerCache, LayerInput } from '../src/cache/contract.ts'
import { FullCache } from '../src/cache/full-cache.ts'
import { rowTypesOf } from '../src/cache/storage/row-types.ts'
import { createRandom, normal } from '../src/kernels/cases.ts'
import { type BackendName, type FloatType, type Kernels, openKernels } from '../src/kernels/index.ts'
import { KvasirError } from '../src/tensor/error.ts'
import { median, medianMs } from './measure.ts'

export interface LinearBenchOptions {
  readonly tokens?: readonly number[]
  readonly window?: number
  readonly heads?: number
  readonly headDim?: number
  readonly dtype?: FloatType
  readonly backend?: BackendName
  readonly threads?: number
  readonly signal?: AbortSignal
  /** After each measurement, two for each entry of `tokens`. */
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
  readonly dtype: FloatType
}

const chunk = 1024
const rounds = 5
const stepsPerRound = 6
const timedSteps = rounds * stepsPerRound

export async function benchLinear(options: LinearBenchOptions = {}): Promise<LinearBenchRow[]> {
  const { tokens = [1024, 2048, 4096, 8192, 16384, 32768, 65536] } = options
  const setup = createSetup(options)
  // One full cache at a time: at 64K tokens each is 2 GiB.
  const full = await race(new FullCache({ ...layerConfig(setup), window: setup.window }, true), setup, tokens, options)
  const dense = await race(new FullCache(layerConfig(setup), true), setup, tokens, options)
  return tokens.map((count, i) => {
    const { linearMs, otherMs: fullMs, speedup, linearBytes, otherBytes: fullBytes } = full[i]!
    const { otherMs: denseMs, speedup: speedupOverDense } = dense[i]!
    const { window } = setup
    return { tokens: count, window, fullBytes, linearBytes, fullMs, denseMs, linearMs, speedup, speedupOverDense }
  })
}

interface Race {
  readonly linearMs: number
  readonly otherMs: number
  /** Median of the ratios round by round. */
  readonly speedup: number
  readonly linearBytes: number
  readonly otherBytes: number
}

/** Fills the other cache and a linear one up to each of `counts` and times their steps in turns, in the same weather. */
async function race(
  other: FullCache,
  setup: Setup,
  counts: readonly number[],
  { signal, onProgress }: LinearBenchOptions,
): Promise<Race[]> {
  const linear = createLinear(setup)
  const races: Race[] = []
  for (const count of counts) {
    for (let seen = linear.info().seenTokens; seen < count - timedSteps; seen = linear.info().seenTokens) {
      if (signal?.aborted) throw new KvasirError('aborted', 'bench', 'interrupted')
      const input = createTokens(setup, seen, Math.min(chunk, count - timedSteps - seen))
      linear.append(input)
      other.append(input)
    }
    const times: [number, number][] = []
    for (let round = 0; round < rounds; round++) {
      times.push([await stepMs(setup, linear), await stepMs(setup, other)])
    }
    races.push({
      linearMs: median(times.map(([ours]) => ours)),
      otherMs: median(times.map(([, theirs]) => theirs)),
      speedup: median(times.map(([ours, theirs]) => theirs / ours)),
      linearBytes: linear.info().bytes,
      otherBytes: other.info().fullBytes,
    })
    onProgress?.()
  }
  linear.dispose()
  other.dispose()
  return races
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
  return {
    window,
    atWindowMs: median(times.map(([atWindow]) => atWindow)),
    atMillionMs: median(times.map(([, atMillion]) => atMillion)),
    ratio: median(times.map(([atWindow, atMillion]) => atMillion / atWindow)),
  }
}

function layerConfig({ kernels, heads, headDim, dtype }: Setup) {
  return {
    kernels,
    ...rowTypesOf({ kvDtype: dtype }),
    shape: { numHeads: heads, numKvHeads: heads, headDim, valueDim: headDim },
  }
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
  return medianMs(() => cache.attend(input, output), stepsPerRound - 1, 3000)
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
