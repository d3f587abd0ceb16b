/** The options that the functions of flash-attn share, under its names in camelCase. */
import { KvasirError } from '../tensor/error.ts'
import type { HeadSizes } from './core.ts'
import type { FloatList } from './lists.ts'
import {
  checkBoolean,
  checkForm,
  checkOptions,
  type Form,
  type RunOptions,
  runKeys,
  type SinkOptions,
  sinkKeys,
  type Window,
} from './options.ts'

export interface FlashOptions extends RunOptions, SinkOptions {
  /** Accepted as 0, since nothing here trains. */
  readonly dropoutP?: number
  /** Factor of q . k (default 1 / sqrt(headDim)). */
  readonly softmaxScale?: number
  /** Bottom-right: the last query sees all keys (default false). */
  readonly causal?: boolean
  /** `[left, right]`; -1, the default: no limit. */
  readonly windowSize?: Window
  /** 0, the default: none. */
  readonly softcap?: number
  /** `[heads]` or `[batch, heads]` f32. */
  readonly alibiSlopes?: FloatList
  /** Refused when true: the probabilities never exist. `returnLse` gives the log-sum-exp. */
  readonly returnAttnProbs?: boolean
}

const keys = [
  ...['dropoutP', 'softmaxScale', 'causal', 'windowSize', 'softcap', 'alibiSlopes', 'returnAttnProbs'],
  ...runKeys,
  ...sinkKeys,
]

/** @param more keys of this function alone */
export function checkFlashOptions(what: string, options: FlashOptions, more: readonly string[] = []): void {
  checkOptions(what, options, [...keys, ...more])
  const { returnAttnProbs = false } = options
  checkBoolean('returnAttnProbs', returnAttnProbs)
  if (!returnAttnProbs) return
  const message = 'returnAttnProbs asks for probabilities, which never exist here; returnLse gives the log-sum-exp'
  throw new KvasirError('unsupported', 'attention', message)
}

export function checkFlashForm(options: FlashOptions, sizes: HeadSizes & { readonly B: number }): Form {
  const { softmaxScale: scale, windowSize: window } = options
  return checkForm({ ...options, scale, window }, sizes, { scale: 'softmaxScale', window: 'windowSize' })
}
