/**
 * Memory over a long read: bytes of the KV cache and of the process, sampled while a document streams through a model.
 *
 * The document is made and encoded piece by piece, so that the only thing that could grow with its length is what the
 * model remembers of it. RSS is what the operating system counts, after a garbage collection.
 */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import type { CausalLM } from '../src/runtime/contract.ts'
import { checkInteger } from '../src/tensor/check.ts'
import { streamDocument } from './document.ts'

export interface MemoryOptions {
  readonly tokens: number
  readonly seed: number
  /** Samples over the whole length; the first one is taken at 1,024 tokens. */
  readonly samples?: number
  readonly signal?: AbortSignal
  readonly onProgress?: (tokensRead: number, sample: MemorySample | undefined) => void
  /** Tests give their own. */
  readonly measureRss?: () => number
}

export interface MemorySample {
  readonly tokens: number
  readonly kvBytes: number
  /** What a cache that keeps everything would hold. */
  readonly fullKvBytes: number
  readonly rssBytes: number
}

export interface MemoryResult {
  readonly policy: string
  readonly window: number | null
  readonly tokens: number
  readonly samples: readonly MemorySample[]
  /** The cache had the same size in all samples. */
  readonly isKvConstant: boolean

  /**
   * Median RSS of the second half of the samples less that of the first half, the first tenth of the way left out: by
   * then buffers have their size. Medians, because collections come when they like.
   */
  readonly rssGrowthBytes: number
  readonly seconds: number
}

export const firstSampleTokens = 1024
const defaultSamples = 20
const pieceTokens = 1024
const facts = 20

/** @throws KvasirError `invalid-argument` for fewer than 1,024 tokens, `aborted` when the signal fires. */
export async function evalMemory(model: CausalLM, options: MemoryOptions): Promise<MemoryResult> {
  const { tokens, seed, samples: count = defaultSamples, signal, onProgress, measureRss = measureProcess } = options
  checkInteger('eval', 'tokens', tokens, firstSampleTokens)
  checkInteger('eval', 'samples', count, 2)
  const started = performance.now()
  const marks = sampleMarks(tokens, count)
  const samples: MemorySample[] = []
  const cache = model.createCache()
  try {
    for (const piece of streamDocument(model.tokenizer, { seed, tokens, facts }, pieceTokens)) {
      await model.prefill(cache, piece, { signal })
      let sample: MemorySample | undefined
      while (samples.length < marks.length && cache.seenTokens >= (marks[samples.length] as number)) {
        const { bytes, fullBytes } = cache.getCacheInfo()
        sample = { tokens: cache.seenTokens, kvBytes: bytes, fullKvBytes: fullBytes, rssBytes: measureRss() }
        samples.push(sample)
      }
      onProgress?.(cache.seenTokens, sample)
    }
    const { policy, window = null } = model.cacheOptions
    return {
      policy,
      window,
      tokens: cache.seenTokens,
      samples,
      isKvConstant: samples.every(({ kvBytes }) => kvBytes === samples[0]?.kvBytes),
      rssGrowthBytes: growth(samples, tokens / 10),
      seconds: (performance.now() - started) / 1000,
    }
  } finally {
    cache.dispose()
  }
}

/** 1,024 and then evenly to the end. */
export function sampleMarks(tokens: number, count: number): number[] {
  const even = Array.from({ length: count - 1 }, (_, index) => Math.floor((tokens * (index + 1)) / (count - 1)))
  return [firstSampleTokens, ...even.filter((mark) => mark > firstSampleTokens)]
}

function growth(samples: readonly MemorySample[], warmTokens: number): number {
  const warm = samples.filter(({ tokens }) => tokens >= warmTokens).map(({ rssBytes }) => rssBytes)
  const half = Math.floor(warm.length / 2)
  return median(warm.slice(half)) - median(warm.slice(0, Math.max(1, half)))
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0
}

/** After a collection, so that garbage does not count. Node hides its collector behind a flag that can be set late. */
function measureProcess(): number {
  setFlagsFromString('--expose-gc')
  const collect: unknown = runInNewContext('gc')
  if (typeof collect === 'function') collect()
  return process.memoryUsage.rss()
}
