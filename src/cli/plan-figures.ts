/** The figures of `kvasir plan`: what attention and the cache of a model cost at a context. Counts, measures nothing. */
import {
  attentionBytes,
  attentionPairs,
  type CountedKvDtype,
  countedKvDtypes,
  kvCacheBytes,
} from '../attention/index.ts'
import type { PlanShape } from './plan-shape.ts'

export interface PlanRequest {
  /** N */
  readonly contextTokens: number
  /** W, beside the windows that the model has itself. */
  readonly window?: number
  readonly kvDtype: CountedKvDtype
  /** Sequences at once. */
  readonly batch: number
  readonly budgetBytes: number
}

/** Attention of one step of all sequences, all layers. Above 2^53 the counts are rounded to the nearest double. */
export interface StepFigures {
  /** What is kept from step to step. */
  readonly cache: 'none' | 'full' | 'kept'
  /** Which query-key pairs are computed; with a cache those of the new token alone. */
  readonly pairs: 'every' | 'causal' | 'kept'
  readonly scoreMultiplications: number
  readonly outputMultiplications: number
  readonly flops: number
  /** K, V, queries and outputs; null without a cache. */
  readonly bytes: number | null
}

/** A cache of all tokens and one of the tokens kept, of all sequences. */
export interface CacheFigures {
  readonly bytesPerToken: number
  readonly fullBytes: number
  readonly bytes: number
  /** Sequences whose caches fit into the budget. */
  readonly fullSessions: number
  readonly sessions: number
}

export interface Plan {
  /** Whether any layer keeps fewer tokens than the context has. */
  readonly isBounded: boolean
  readonly steps: readonly StepFigures[]
  /** One row a storage type. */
  readonly dtypes: readonly (CacheFigures & { readonly dtype: CountedKvDtype })[]
  /** In the type asked for; `gqa` is there when the model has it. */
  readonly heads: readonly (CacheFigures & { readonly kind: 'mha' | 'gqa' | 'mqa'; readonly numKvHeads: number })[]
  /** Bytes saved: by the windows in the type asked for, and by that type against f32 when all tokens stay. */
  readonly saved: { readonly byWindow: number; readonly byDtype: number }
}

/** @throws KvasirError `invalid-argument`: counts that are too large to be exact */
export function plan(shape: PlanShape, request: PlanRequest): Plan {
  const { contextTokens, window = contextTokens, kvDtype } = request
  const kept = shape.layerWindows.map((own) => Math.min(contextTokens, window, own ?? contextTokens))
  const isBounded = kept.some((tokens) => tokens < contextTokens)
  const dtypes = countedKvDtypes.map((dtype) => ({ dtype, ...cacheFigures(shape, { ...request, kvDtype: dtype }) }))
  const chosen = cacheFigures(shape, request)
  const f32 = cacheFigures(shape, { ...request, kvDtype: 'f32' })
  return {
    isBounded,
    steps: stepFigures(shape, request, kept).filter(({ pairs }) => isBounded || pairs !== 'kept'),
    dtypes,
    heads: headKinds(shape).map(({ kind, numKvHeads }) => ({
      ...{ kind, numKvHeads },
      ...cacheFigures({ ...shape, numKvHeads }, { ...request, kvDtype }),
    })),
    saved: { byWindow: chosen.fullBytes - chosen.bytes, byDtype: f32.fullBytes - chosen.fullBytes },
  }
}

function stepFigures(shape: PlanShape, request: PlanRequest, kept: readonly number[]): StepFigures[] {
  const { contextTokens: N, batch } = request
  const all = shape.layerWindows.map(() => N)
  const bytes = (bounded: boolean) => attentionBytes({ ...cacheOptions(shape, request, bounded), batch }).total
  const count = (numTokens: number, causal: boolean, windows: readonly number[]) => {
    const pairs = batch * shape.numHeads * countPairs(numTokens, N, causal, windows)
    const scoreMultiplications = pairs * shape.headDim
    const outputMultiplications = pairs * shape.valueDim
    return { scoreMultiplications, outputMultiplications, flops: 2 * (scoreMultiplications + outputMultiplications) }
  }
  return [
    { cache: 'none', pairs: 'every', ...count(N, false, all), bytes: null },
    { cache: 'none', pairs: 'causal', ...count(N, true, all), bytes: null },
    { cache: 'none', pairs: 'kept', ...count(N, true, kept), bytes: null },
    { cache: 'full', pairs: 'causal', ...count(1, true, all), bytes: bytes(false) },
    { cache: 'kept', pairs: 'kept', ...count(1, true, kept), bytes: bytes(true) },
  ]
}

/** Pairs of one query head in all layers. Floating point: of long contexts the product with heads and dims is inexact. */
function countPairs(numTokens: number, numKeys: number, causal: boolean, windows: readonly number[]): number {
  const layersOf = new Map<number, number>()
  for (const window of windows) layersOf.set(window, (layersOf.get(window) ?? 0) + 1)
  const each = [...layersOf].map(([window, layers]) => layers * attentionPairs({ numTokens, numKeys, causal, window }))
  return each.reduce((sum, pairs) => sum + pairs, 0)
}

function cacheFigures(shape: PlanShape, request: PlanRequest): CacheFigures {
  const { numHeads, ...options } = cacheOptions(shape, request, true)
  const { bytesPerToken, bytes, fullBytes } = kvCacheBytes({ ...options, batch: request.batch })
  const one = kvCacheBytes(options)
  const fitting = (each: number): number => Math.floor(request.budgetBytes / each)
  return { bytesPerToken, fullBytes, bytes, fullSessions: fitting(one.fullBytes), sessions: fitting(one.bytes) }
}

function cacheOptions(shape: PlanShape, { contextTokens, window, kvDtype }: PlanRequest, isBounded: boolean) {
  const { numLayers, numHeads, numKvHeads, headDim, valueDim, hasImportance, layerWindows } = shape
  const windows = isBounded ? { window, layerWindows } : {}
  const sizes = { numLayers, numHeads, numKvHeads, headDim, valueDim, hasImportance }
  return { ...sizes, numTokens: contextTokens, dtype: kvDtype, ...windows }
}

/** The same model with a KV head for each query head, with its own, and with one. */
function headKinds({ numHeads, numKvHeads }: PlanShape): { kind: 'mha' | 'gqa' | 'mqa'; numKvHeads: number }[] {
  const gqa = numKvHeads > 1 && numKvHeads < numHeads ? [{ kind: 'gqa' as const, numKvHeads }] : []
  const mqa = numHeads > 1 ? [{ kind: 'mqa' as const, numKvHeads: 1 }] : []
  return [{ kind: 'mha', numKvHeads: numHeads }, ...gqa, ...mqa]
}
