/** Options that several functions share, checked and put into the words of the kernels. */
import type { AttendArgs, FloatType } from '../kernels/index.ts'
import { checkFinite, checkInteger, checkKeys, checkObject, describe } from '../tensor/check.ts'
import { invalidArgument, KvasirError } from '../tensor/error.ts'
import type { BackendOptions } from './backends.ts'
import { type FloatList, finite, finiteOrHidden, floatList } from './lists.ts'

export interface RunOptions extends BackendOptions {
  /** Also return the log of the sum of exponentials of each row (default false). */
  readonly returnLse?: boolean
  /** Results never depend on batch or threads, asked for or not; accepted for what is written for other libraries. */
  readonly deterministic?: boolean
  /** What the tensors hold, where their type does not say: `bf16` for uint16 tensors with the bits of bfloat16. */
  readonly dtype?: FloatType
}

export interface SinkOptions {
  /** Keys before this position are seen however far outside the window on the left (default 0). */
  readonly sinks?: number
  /** `[H]` f32: logit of a virtual key with a value of zero, one a head (gpt-oss). */
  readonly sinkLogits?: FloatList
  /** The same with logits of 0 (default false). */
  readonly smoothSoftmax?: boolean
}

/** `[left, right]`: a query at p sees keys from p - left to p + right; -1 or Infinity: no limit on that side. */
export type Window = readonly [left: number, right: number]

export const runKeys = ['returnLse', 'deterministic', 'dtype', 'backend', 'kernels'] as const
export const sinkKeys = ['sinks', 'sinkLogits', 'smoothSoftmax'] as const

/** Which rows a query sees and what happens to its logits, for all sequences of a call. */
export interface Form extends Pick<AttendArgs, 'scale' | 'left' | 'right' | 'sinks' | 'softcap' | 'sinkLogits'> {
  /** `[H]` of sequence b */
  readonly alibiSlopes: (b: number) => Float32Array | undefined
}

interface FormOptions extends SinkOptions {
  readonly causal?: boolean
  readonly scale?: number
  readonly window?: Window
  readonly softcap?: number
  readonly alibiSlopes?: FloatList
}

interface FormSizes {
  readonly B: number
  readonly H: number
  readonly D: number
}

/** @param names how the function calls options that have several names */
export function checkForm(
  options: FormOptions,
  { B, H, D }: FormSizes,
  names: { readonly scale: string; readonly window: string } = { scale: 'scale', window: 'window' },
): Form {
  const { causal = false, scale = 1 / Math.sqrt(D), softcap = 0, sinks = 0, alibiSlopes } = options
  checkBoolean('causal', causal)
  checkFloat(names.scale, scale)
  checkFloat('softcap', softcap)
  if (softcap < 0) throw invalidArgument('attention', `expected a softcap of at least 0 (0: none), got ${softcap}`)
  if (softcap > 0 && Math.fround(softcap) === 0) {
    throw invalidArgument('attention', `expected a softcap that is above 0 as f32 too, got ${softcap}`)
  }
  checkInteger('attention', 'sinks', sinks, 0, 2 ** 31 - 2)
  const [left, right] = checkWindow(names.window, options.window)
  const slopes = alibiSlopes === undefined ? undefined : floatList('alibiSlopes', alibiSlopes, [[H], [B, H]], finite)
  const perSequence = slopes !== undefined && slopes.length !== H
  return {
    ...{ scale, left, right: causal ? 0 : right, sinks },
    // A cap of 0 is none, as with the peers.
    softcap: softcap || undefined,
    sinkLogits: checkSinkLogits(options, H),
    alibiSlopes: (b) => (perSequence ? slopes?.subarray(b * H, (b + 1) * H) : slopes),
  }
}

/** Finite as f32, which is what kernels compute in. */
export function checkFloat(name: string, value: unknown): void {
  checkFinite('attention', name, value)
  checkFinite('attention', `${name} as f32`, Math.fround(value as number))
}

function checkWindow(name: string, window: unknown): [number | undefined, number | undefined] {
  if (window === undefined) return [undefined, undefined]
  if (!Array.isArray(window) || window.length !== 2) {
    throw invalidArgument('attention', `expected [left, right] for ${name}, got ${describe(window)}`)
  }
  const side = (which: string, value: unknown): number | undefined => {
    if (value === -1 || value === Number.POSITIVE_INFINITY) return undefined
    checkInteger('attention', `${name} (${which}; -1: no limit)`, value, -1)
    // Beyond what positions can differ by there is no limit either.
    return value < 2 ** 31 - 1 ? value : undefined
  }
  return [side('left', window[0]), side('right', window[1])]
}

function checkSinkLogits({ sinkLogits, smoothSoftmax = false }: SinkOptions, H: number): Float32Array | undefined {
  checkBoolean('smoothSoftmax', smoothSoftmax)
  if (sinkLogits === undefined) return smoothSoftmax ? new Float32Array(H) : undefined
  if (smoothSoftmax) throw invalidArgument('attention', 'expected sinkLogits or smoothSoftmax, got both')
  return floatList('sinkLogits', sinkLogits, [[H]], finiteOrHidden)
}

export function checkBoolean(name: string, value: unknown): void {
  if (typeof value === 'boolean') return
  throw invalidArgument('attention', `expected true or false for ${name}, got ${describe(value)}`)
}

const dropouts: readonly string[] = ['dropout', 'dropoutP']

/**
 * The options object itself: an object, with known keys, without dropout.
 * @throws KvasirError `unsupported` for dropout, `invalid-argument` for the rest
 */
export function checkOptions(what: string, options: object, known: readonly string[]): void {
  checkObject('attention', what, options)
  for (const name of dropouts) {
    const dropout = (options as Record<string, unknown>)[name]
    if (dropout === undefined || dropout === 0) continue
    const message = `${name} is for training, and ${what} only infers: expected 0 or none, got ${describe(dropout)}`
    throw new KvasirError('unsupported', 'attention', message)
  }
  const others = Object.entries(options).filter(([name]) => !dropouts.includes(name) || known.includes(name))
  checkKeys('attention', what, Object.fromEntries(others), known)
  const { returnLse = false, deterministic = false } = options as RunOptions
  checkBoolean('returnLse', returnLse)
  checkBoolean('deterministic', deterministic)
}
