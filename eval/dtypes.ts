/**
 * Storage types of K and V beside each other: what rounding them costs. All caches keep the same tokens; the reference
 * stores f16, and each other type reads the same texts from the beginning by itself.
 */
import type { CacheOptions, KvDtype } from '../src/cache/contract.ts'
import { storageTypes } from '../src/kernels/index.ts'
import type { CausalLM } from '../src/runtime/contract.ts'
import { checkChoice } from '../src/tensor/check.ts'
import { invalidArgument } from '../src/tensor/error.ts'
import { type Compared, compareCaches, tokensToRead } from './compare.ts'
import type { Passage } from './passages.ts'

export interface DtypeEvalOptions {
  readonly passages: readonly Passage[]
  /** `int8`, or K and V apart: `int8/int4`. Default: all, and `int8/int4`. */
  readonly types?: readonly string[] | undefined
  /** Of all caches (default: all tokens stay). */
  readonly policy?: CacheOptions['policy'] | undefined
  readonly window?: number | undefined
  readonly signal?: AbortSignal
  readonly onProgress?: (tokens: number, total: number) => void
}

export interface DtypeRow extends Compared {
  readonly type: string
  readonly keys: KvDtype
  readonly values: KvDtype
}

export interface DtypeEvalResult {
  readonly reference: typeof referenceType
  readonly policy: CacheOptions['policy']
  readonly window: number | null
  /** Tokens of the longest text that was read before comparing. */
  readonly contextTokens: number
  readonly texts: number
  readonly referenceBytes: number
  readonly rows: readonly DtypeRow[]
  readonly seconds: number
}

const referenceType = 'f16'
const mixed = ['int8/int4']

/** @throws KvasirError `invalid-argument` for an unknown type */
export async function evalDtypes(model: CausalLM, options: DtypeEvalOptions): Promise<DtypeEvalResult> {
  const { passages, policy = 'full', window, signal, onProgress } = options
  const { types = [...storageTypes.filter((type) => type !== referenceType), ...mixed] } = options
  const pairs = types.map(readPair)
  const started = performance.now()
  const common = { policy, window }
  const groups = [pairs.map(({ keys, values }) => ({ ...common, kvDtypeK: keys, kvDtypeV: values }))]
  const total = tokensToRead({ passages, groups })
  const all = await compareCaches(model, {
    ...{ passages, reference: { ...common, kvDtype: referenceType }, groups, signal },
    onProgress: onProgress && ((tokens) => onProgress(tokens, total)),
  })
  return {
    ...{ reference: referenceType, policy, window: window ?? null, texts: passages.length },
    contextTokens: Math.max(...passages.map(({ context }) => context.length)),
    referenceBytes: all.reference.kvBytes,
    rows: pairs.map((pair, i) => ({ ...pair, ...(all.groups[0]![i] as Compared) })),
    seconds: (performance.now() - started) / 1000,
  }
}

function readPair(type: string): Pick<DtypeRow, 'type' | 'keys' | 'values'> {
  const [keys, values = keys, ...more] = type.split('/')
  if (more.length > 0)
    throw invalidArgument('eval', `expected a type, or those of K and V as in int8/int4, got "${type}"`)
  checkChoice('eval', 'the type of K', keys, storageTypes)
  checkChoice('eval', 'the type of V', values, storageTypes)
  return { type, keys, values }
}
