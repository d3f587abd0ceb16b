/**
 * `mergeAttentionStates`: attention over parts of the keys, put together by their log-sum-exps (merge_states of
 * FlashInfer, with natural logarithms). What the parts saw together is what one call would have seen.
 */
import type { FloatType } from '../kernels/index.ts'
import { toStorage } from '../kernels/storage.ts'
import { describe } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import type { AttentionState } from './core.ts'
import { checkOptions } from './options.ts'
import { f32Data, f32Tensor, floatData, isTensor, storedTensor } from './tensors.ts'
import { widen } from './widen.ts'

export interface MergeOptions {
  /** `bf16` for outputs that are uint16 tensors with the bits of bfloat16. */
  readonly dtype?: FloatType
}

interface Part {
  readonly output: Float32Array
  readonly lse: Float32Array
}

/**
 * Parts must not share keys, and learned sinks belong into one of them only: each part's sink counts.
 * @param states at least one, all with the same dims: `output [..., E]`, `lse [...]` f32. A row whose LSE is -Infinity
 * (or +Infinity, as flash-attn writes it) saw nothing, and its output is not read.
 * @returns the same for all keys; a row that no part saw gives zeros and -Infinity, a NaN in a log-sum-exp gives NaN
 * @throws KvasirError `invalid-argument`: no states, dims or types that differ
 */
export async function mergeAttentionStates(
  states: readonly AttentionState[],
  options: MergeOptions = {},
): Promise<AttentionState> {
  if (!Array.isArray(states) || states.length === 0) {
    throw invalidArgument('attention', `expected a list of at least one state, got ${describe(states)}`)
  }
  checkOptions('mergeAttentionStates', options, ['dtype'])
  const first = readState(states[0], 0, undefined, options.dtype)
  const parts = states.map((state, n) => (n === 0 ? first : readState(state, n, first, options.dtype)))
  const { dims, storage } = first
  const E = dims.at(-1) as number
  const rows = first.lse.length
  const output = new Float32Array(rows * E)
  const lse = new Float32Array(rows)
  for (let row = 0; row < rows; row++) lse[row] = mergeRow(parts, row, output.subarray(row * E, (row + 1) * E))
  const merged = toStorage(output, storage)
  return { output: storedTensor(merged, storage, dims), lse: f32Tensor(lse, dims.slice(0, -1)) }
}

function readState(
  state: AttentionState,
  n: number,
  first: { readonly dims: readonly number[]; readonly storage: FloatType } | undefined,
  dtype: FloatType | undefined,
): Part & { readonly dims: readonly number[]; readonly storage: FloatType } {
  if (typeof state !== 'object' || state === null) {
    throw invalidArgument('attention', `expected { output, lse } for states[${n}], got ${describe(state)}`)
  }
  const name = `states[${n}].output`
  const shape = first?.dims ?? (isTensor(state.output) ? state.output.dims.map(() => null) : [])
  const { data, storage, dims } = floatData(name, state.output, shape, dtype)
  if (dims.length === 0) throw invalidArgument('attention', `expected at least one axis in ${name}, got none`)
  if (first && storage !== first.storage) {
    throw invalidArgument('attention', `expected ${first.storage} for ${name}, as states[0] is, got ${storage}`)
  }
  const lse = f32Data(`states[${n}].lse`, state.lse, dims.slice(0, -1))
  return { output: widen(data, storage), lse, dims, storage }
}

/** @returns the log-sum-exp of the row */
function mergeRow(parts: readonly Part[], row: number, output: Float32Array): number {
  const E = output.length
  const logs = parts.map(({ lse }) => {
    const log = lse[row] as number
    return log === Number.POSITIVE_INFINITY ? Number.NEGATIVE_INFINITY : log
  })
  if (logs.some(Number.isNaN)) {
    output.fill(Number.NaN)
    return Number.NaN
  }
  const max = Math.max(...logs)
  if (max === Number.NEGATIVE_INFINITY) return max
  const weights = logs.map((log) => Math.exp(log - max))
  const sum = weights.reduce((a, b) => a + b)
  for (let e = 0; e < E; e++) {
    let total = 0
    // A part that saw nothing may hold anything: 0 * NaN must not reach the sum.
    for (const [n, weight] of weights.entries()) {
      if (weight > 0) total += weight * ((parts[n] as Part).output[row * E + e] as number)
    }
    output[e] = total / sum
  }
  return max + Math.log(sum)
}
