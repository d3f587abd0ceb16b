/** From options to calls of attention, and what each of these must do at least. */
import { availableParallelism } from 'node:os'
import { type AttendShape, cases } from '../../src/kernels/cases.ts'
import type { FloatType, StorageType } from '../../src/kernels/index.ts'
import { storageTypes } from '../../src/kernels/storage.ts'
import { checkChoice, checkInteger } from '../../src/tensor/check.ts'
import { invalidArgument } from '../../src/tensor/error.ts'
import { isQuantized } from '../../src/tensor/quantized-row.ts'
import { type AttentionCase, type Phase, phases, type Work } from './contract.ts'

export interface CaseOptions {
  readonly phase?: Phase
  readonly kvDtypes?: readonly StorageType[]
  /** Default: f32 for a decode step and over quantized K and V, that of K and V for a prefill. */
  readonly queryDtype?: FloatType
  readonly heads?: readonly number[]
  readonly kvHeads?: number
  readonly headDim?: number
  readonly lengths?: readonly number[]
  readonly window?: number
  readonly threads?: number
  /** Few and small: to see that all works. */
  readonly isQuick?: boolean
}

interface Defaults {
  readonly kvDtypes: readonly StorageType[]
  readonly heads: readonly number[]
  readonly kvHeads: number
  readonly lengths: readonly number[]
}

const defaults = {
  decode: { kvDtypes: ['f16', 'f32'], heads: [8, 32, 64], kvHeads: 8, lengths: [512, 2048, 8192, 32_768] },
  prefill: { kvDtypes: ['f32'], heads: [32], kvHeads: 8, lengths: [128, 512, 1024, 2048, 4096] },
  memory: { kvDtypes: ['f32'], heads: [4], kvHeads: 1, lengths: [1024, 4096, 32_768] },
} as const satisfies Record<Phase, Defaults>

const quick = {
  decode: { kvDtypes: ['f16'], heads: [32], kvHeads: 8, lengths: [256, 1024] },
  prefill: { kvDtypes: ['f32'], heads: [8], kvHeads: 2, lengths: [128, 256] },
  memory: { kvDtypes: ['f32'], heads: [4], kvHeads: 1, lengths: [1024, 2048] },
} as const satisfies Record<Phase, Defaults>

/** @throws KvasirError `invalid-argument`: unknown names, sizes that are no integers of at least 1, H no multiple of K */
export function attentionCases(options: CaseOptions): AttentionCase[] {
  const { phase = 'decode', headDim = 128, window, threads = availableParallelism() } = options
  checkChoice('bench', 'phase', phase, phases)
  const basis: Defaults = (options.isQuick ? quick : defaults)[phase]
  const { kvDtypes = basis.kvDtypes, heads = basis.heads, kvHeads = basis.kvHeads, lengths = basis.lengths } = options
  for (const dtype of kvDtypes) checkChoice('bench', 'kvDtype', dtype, storageTypes)
  for (const [name, value] of Object.entries({ headDim, kvHeads, threads })) checkInteger('bench', name, value, 1)
  for (const value of lengths) checkInteger('bench', 'length', value, 1)
  if (window !== undefined) checkInteger('bench', 'window', window, 1)
  for (const value of heads) {
    checkInteger('bench', 'heads', value, 1)
    if (value % kvHeads) {
      throw invalidArgument('bench', `expected heads that are a multiple of the ${kvHeads} KV heads, got ${value}`)
    }
  }
  return kvDtypes.flatMap((kvDtype) =>
    heads.flatMap((count) =>
      lengths.map((length) => ({
        ...{
          phase,
          kvDtype,
          queryDtype: options.queryDtype ?? (phase === 'decode' || isQuantized(kvDtype) ? 'f32' : kvDtype),
        },
        ...{ heads: count, kvHeads, headDim, length, threads },
        window: window !== undefined && window < length ? window : null,
      })),
    ),
  )
}

/** T: queries a head. */
export function numQueries({ phase, length }: AttentionCase): number {
  return phase === 'decode' ? 1 : length
}

/** The same for the case object of the kernels' tests, which counts. */
function shapeOf(attentionCase: AttentionCase): AttendShape {
  const { heads, kvHeads, headDim, kvDtype, queryDtype, length, window } = attentionCase
  return {
    ...{ name: describeCase(attentionCase), numTokens: numQueries(attentionCase), segments: [length] },
    ...{ numHeads: heads, numKvHeads: kvHeads, headDim, storage: kvDtype, queryStorage: queryDtype },
    ...{ positions: 'consecutive', right: 0, left: window === null ? undefined : window - 1 },
  }
}

export function countWork(attentionCase: AttentionCase): Work {
  const shape = shapeOf(attentionCase)
  return { bytes: cases.attend.bytes(shape), flops: cases.attend.flops(shape) }
}

/** For people: `decode, f16, H=32 K=8 D=128, S=2048`. */
export function describeCase(attentionCase: AttentionCase): string {
  const { phase, kvDtype, heads, kvHeads, headDim, length, window } = attentionCase
  const end = window === null ? '' : `, window ${window}`
  return `${phase}, ${kvDtype}, H=${heads} K=${kvHeads} D=${headDim}, ${phase === 'decode' ? 'S' : 'N'}=${length}${end}`
}
