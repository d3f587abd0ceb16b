/**
 * Dynamic mask attention over a full history: each query sees only the W visible keys of highest bias, chosen anew for
 * every query, and the bias is added to its logits (arXiv:2508.02124; names and layout of flash_dmattn). It keeps and
 * ranks everything, so it is the independent statement of what a linear cache computes in constant memory.
 */
import type { Tensor } from 'onnxruntime-common'
import { defaultKernels, type Kernels } from '../kernels/index.ts'
import { checkFinite, checkInteger, checkKeys } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import { f32Data, f32Tensor } from './tensors.ts'

export interface DynamicMaskOptions {
  /** W: how many keys a query sees (default 2048). */
  readonly keepWindowSize?: number
  /** Query t sees keys up to t + S - T, the last query all (default true). */
  readonly isCausal?: boolean
  /** Factor of q . k (default 1 / sqrt(D)). */
  readonly softmaxScale?: number
  /** Whether the bias is added to the logits, or only selects (default true). */
  readonly addBias?: boolean
  /** Default: the best backend of this machine. */
  readonly kernels?: Kernels
}

interface Problem {
  readonly B: number
  readonly T: number
  readonly S: number
  readonly H: number
  readonly K: number
  readonly D: number
  readonly biasRows: number
}

/**
 * @param query `[B, T, H, D]` f32
 * @param key `[B, S, K, D]` f32, H a multiple of K
 * @param value `[B, S, K, D]` f32
 * @param bias `[B, K, 1 or T, S]` f32: one row for all queries, or one for each. Higher wins, of equals the later key;
 * -Infinity hides a key
 * @returns `[B, T, H, D]`; a query that sees nothing gives zeros
 * @throws KvasirError `invalid-argument`: wrong shapes or types, NaN in the bias, unknown options
 */
export async function dynamicMaskAttention(
  query: Tensor,
  key: Tensor,
  value: Tensor,
  bias: Tensor,
  options: DynamicMaskOptions = {},
): Promise<Tensor> {
  checkKeys('attention', 'dynamicMaskAttention', options, [
    ...['keepWindowSize', 'isCausal', 'softmaxScale', 'addBias', 'kernels'],
  ])
  const { keepWindowSize = 2048, kernels = defaultKernels() } = options
  checkInteger('attention', 'keepWindowSize', keepWindowSize, 1, 2 ** 31 - 2)
  if (options.softmaxScale !== undefined) checkFinite('attention', 'softmaxScale', options.softmaxScale)
  f32Data('query', query, [null, null, null, null])
  f32Data('key', key, [query.dims[0] as number, null, null, query.dims[3] as number])
  f32Data('value', value, key.dims)
  const [B, T, H, D] = query.dims as [number, number, number, number]
  const [, S, K] = key.dims as [number, number, number]
  if (K === 0 || H % K !== 0)
    throw invalidArgument('attention', `expected ${H} query heads to be a multiple of ${K} KV heads`)
  const biasRows = bias.dims[2] === 1 ? 1 : T
  const biasData = f32Data('bias', bias, [B, K, biasRows, S])
  if (biasData.some(Number.isNaN)) throw invalidArgument('attention', 'expected a bias without NaN')
  const output = new Float32Array(B * T * H * D)
  const problem: Problem = { B, T, S, H, K, D, biasRows }
  for (let b = 0; b < B; b++) {
    for (let t = 0; t < T; t++)
      attendRow(problem, { query, key, value, biasData, output }, { b, t }, { ...options, keepWindowSize, kernels })
  }
  return f32Tensor(output, [B, T, H, D])
}

/** One query token of one sequence: rank the visible keys of each head, gather the best, attend. */
function attendRow(
  { T, S, H, K, D, biasRows }: Problem,
  arrays: { query: Tensor; key: Tensor; value: Tensor; biasData: Float32Array; output: Float32Array },
  { b, t }: { b: number; t: number },
  options: DynamicMaskOptions & { keepWindowSize: number; kernels: Kernels },
): void {
  const { isCausal = true, softmaxScale = 1 / Math.sqrt(D), addBias = true, keepWindowSize, kernels } = options
  const numRows = isCausal ? Math.max(0, Math.min(S, t + S - T + 1)) : S
  const scores = new Float32Array(K * S)
  for (let k = 0; k < K; k++) {
    const from = ((b * K + k) * biasRows + (biasRows === 1 ? 0 : t)) * S
    scores.set(arrays.biasData.subarray(from, from + S), k * S)
  }
  const rows = new Int32Array(K * S)
  const lengths = new Int32Array(K)
  kernels.select({ scores, numKvHeads: K, capacity: S, numRows, window: keepWindowSize, rows, lengths })
  const at = (b * T + t) * H * D
  const stored = (tensor: Tensor) => (tensor.data as Float32Array).subarray(b * S * K * D, (b + 1) * S * K * D)
  kernels.attend({
    query: (arrays.query.data as Float32Array).subarray(at, at + H * D),
    output: arrays.output.subarray(at, at + H * D),
    ...{ numTokens: 1, numHeads: H, numKvHeads: K, headDim: D, valueDim: D, scale: softmaxScale, firstPosition: 0 },
    segments: [
      {
        ...{
          keys: stored(arrays.key),
          values: stored(arrays.value),
          layout: 'token-major',
          capacity: S,
          lengths,
          rows,
        },
        bias: addBias ? scores : undefined,
      },
    ],
  })
}
