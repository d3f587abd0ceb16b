/** From options to the cases that are measured. */
import { availableParallelism } from 'node:os'
import type { PolicyChoice } from '../../src/cache/contract.ts'
import { storageTypes } from '../../src/kernels/index.ts'
import { policyNames, readPolicy } from '../../src/policies/index.ts'
import { checkChoice, checkInteger, checkKeys } from '../../src/tensor/check.ts'
import type { CacheCase, CacheType, LayerSizes } from './contract.ts'

export interface CacheBenchOptions {
  /** Default: all, each by itself. */
  readonly policies?: readonly PolicyChoice[]
  /** Default: f16. */
  readonly kvDtypes?: readonly CacheType[]
  /** S */
  readonly lengths?: readonly number[]
  readonly window?: number
  readonly heads?: number
  readonly kvHeads?: number
  readonly headDim?: number
  readonly threads?: number
  /** Pages of evicted tokens that come back for each token (default: none). */
  readonly recall?: number
  /** Rounds (default 5, quick 2). */
  readonly repeat?: number
  /** Few steps of a small layer: to see that all works. */
  readonly isQuick?: boolean
  readonly signal?: AbortSignal
  /** Steps done of all, and what comes next. */
  readonly onProgress?: (done: number, total: number, what: string) => void
}

export interface Plan extends LayerSizes {
  readonly cases: readonly CacheCase[]
  /** Ascending. */
  readonly lengths: readonly number[]
  readonly repeat: number
  /** Of a round: as many as lie between two rankings, for every policy. */
  readonly steps: number
  /** For a round. */
  readonly budgetMs: number
}

const optionNames = [
  ...['policies', 'kvDtypes', 'lengths', 'window', 'heads', 'kvHeads', 'headDim', 'threads', 'repeat', 'isQuick'],
  ...['recall', 'signal', 'onProgress'],
]
const longest = 2 ** 24
/** What is left of a wide range: 1K to 1M. */
const usualLengths = [1024, 4096, 16_384, 65_536, 262_144, 1_048_576]

/** @throws KvasirError `invalid-argument`: unknown options, policies and types, sizes out of range */
export function planBench(options: CacheBenchOptions): Plan {
  checkKeys('bench', 'benchCache', options, optionNames)
  const { isQuick = false, policies = policyNames, kvDtypes = ['f16'], threads = availableParallelism() } = options
  const { lengths = isQuick ? [256, 1024] : usualLengths, repeat = isQuick ? 2 : 5 } = options
  const { window = isQuick ? 128 : 2048, heads = isQuick ? 4 : 32, kvHeads = isQuick ? 2 : 8 } = options
  const sizes = { heads, kvHeads, headDim: options.headDim ?? (isQuick ? 32 : 128), window, threads }
  for (const name of policies) readPolicy(name)
  for (const name of kvDtypes) checkChoice('bench', 'kvDtype', name, storageTypes)
  for (const value of lengths) checkInteger('bench', 'length', value, 2, longest)
  const { recall } = options
  if (recall !== undefined) checkInteger('bench', 'recall', recall, 1, 4096)
  for (const [name, value] of Object.entries({ ...sizes, repeat })) checkInteger('bench', name, value, 1, longest)
  const cases = policies.flatMap((policy) => kvDtypes.map((kvDtype) => ({ ...sizes, policy, kvDtype, recall })))
  const ascending = [...new Set(lengths)].sort((a, b) => a - b)
  return { ...sizes, cases, lengths: ascending, repeat, steps: isQuick ? 64 : 512, budgetMs: isQuick ? 500 : 2000 }
}
