/** The bias of dynamic mask attention, as scores of keys by head. */
import type { Tensor } from 'onnxruntime-common'
import { invalidArgument } from '../tensor/error.ts'
import type { Problem } from './core.ts'
import { checkBias } from './masks.ts'
import { f32Data } from './tensors.ts'

export interface Bias {
  /** How many heads select for themselves: K, or H when each query head has a bias of its own. */
  readonly numHeads: number
  /** 1, or T. */
  readonly numRows: number
  /** `[numHeads, S]` for query t of sequence b; a copy, unless there is only one row. */
  readonly scores: (b: number, t: number) => Float32Array
}

/** @param tensor `[B | 1, K | H | 1, T | 1, S]` */
export function readSelectingBias(tensor: Tensor, { B, T, S, H, K }: Problem): Bias {
  const data = f32Data('bias', tensor, [null, null, null, S])
  const [b1, n1, t1] = tensor.dims as [number, number, number, number]
  if ((b1 !== 1 && b1 !== B) || (n1 !== 1 && n1 !== K && n1 !== H) || (t1 !== 1 && t1 !== T)) {
    const heads = [...new Set([K, H, 1])].join(' or ')
    const expected = `[${B} or 1, ${heads}, ${T} or 1, ${S}]`
    throw invalidArgument('attention', `expected shape ${expected} for bias, got [${tensor.dims.join(', ')}]`)
  }
  checkBias('bias', data)
  const numHeads = n1 === 1 ? K : n1
  const numRows = t1 === 1 ? 1 : T
  const scores = (b: number, t: number): Float32Array => {
    const sequence = b1 === 1 ? 0 : b
    const row = (n: number) => {
      const from = ((sequence * n1 + (n1 === 1 ? 0 : n)) * t1 + (t1 === 1 ? 0 : t)) * S
      return data.subarray(from, from + S)
    }
    if (n1 === numHeads && t1 === 1) return data.subarray(sequence * n1 * S, (sequence + 1) * n1 * S)
    const copy = new Float32Array(numHeads * S)
    for (let n = 0; n < numHeads; n++) copy.set(row(n), n * S)
    return copy
  }
  return { numHeads, numRows, scores }
}
