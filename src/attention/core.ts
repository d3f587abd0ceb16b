/**
 * From a checked problem to calls of the kernels: one call a sequence, over views of the tensors as they lie. Nothing
 * here is O(T S), and K and V are not copied.
 */
import type { Tensor } from 'onnxruntime-common'
import type { AttendArgs, FloatArray, FloatType, Kernels, KeyValueSegment } from '../kernels/index.ts'
import { checkInteger } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import type { Form } from './options.ts'
import { allocate, type FloatData, f32Tensor, floatData, storedTensor } from './tensors.ts'

/** The output with the log of the sum of exponentials of each row: what `mergeAttentionStates` takes. */
export interface AttentionState {
  /** `[..., E]` */
  readonly output: Tensor
  /** f32, the dims of `output` without the last */
  readonly lse: Tensor
}

/** Heads and what they are made of: H, K, D and E. */
export interface HeadSizes {
  readonly H: number
  readonly K: number
  readonly D: number
  readonly E: number
}

export interface Problem extends HeadSizes {
  readonly B: number
  readonly T: number
  readonly S: number
  readonly storage: FloatType
  readonly query: FloatArray
  readonly key: FloatArray
  readonly value: FloatArray
}

interface ProblemNames {
  readonly query: string
  readonly key: string
  readonly value: string
}

const maxDim = 65536
/** Positions are int32. */
const maxTokens = 2 ** 31 - 2
/** Tensors without tokens may have any number of sequences and take no memory; calls are made for each. */
const maxSequences = 2 ** 20

export function checkHeads({ H, K, D, E }: HeadSizes): void {
  const sizes = { 'the number of query heads': H, 'the number of KV heads': K, 'the head dim': D, 'the value dim': E }
  for (const [name, size] of Object.entries(sizes)) checkInteger('attention', name, size, 1, maxDim)
  if (H % K !== 0) throw invalidArgument('attention', `expected ${H} query heads to be a multiple of ${K} KV heads`)
}

export function checkLengths({ B, T, S }: { readonly B: number; readonly T: number; readonly S: number }): void {
  checkInteger('attention', 'the number of sequences', B, 0, maxSequences)
  checkInteger('attention', 'the number of queries', T, 0, maxTokens)
  checkInteger('attention', 'the number of keys', S, 0, maxTokens)
}

/** @throws KvasirError when a tensor is not of the type of the first */
export function checkSameStorage(name: string, came: FloatData, first: string, expected: FloatData): void {
  if (came.storage === expected.storage) return
  throw invalidArgument('attention', `expected ${expected.storage} for ${name}, as ${first} is, got ${came.storage}`)
}

/** q `[B, T, H, D]`, k `[B, S, K, D]`, v `[B, S, K, E]`; `head-major`: axes 1 and 2 the other way round. */
export function readProblem(
  names: ProblemNames,
  tensors: { readonly query: Tensor; readonly key: Tensor; readonly value: Tensor },
  layout: 'token-major' | 'head-major',
  dtype: FloatType | undefined,
): Problem {
  const query = floatData(names.query, tensors.query, [null, null, null, null], dtype)
  const [B, q1, q2, D] = query.dims as [number, number, number, number]
  const key = floatData(names.key, tensors.key, [B, null, null, D], dtype)
  const [, k1, k2] = key.dims as [number, number, number]
  const value = floatData(names.value, tensors.value, [B, k1, k2, null], dtype)
  checkSameStorage(names.key, key, names.query, query)
  checkSameStorage(names.value, value, names.query, query)
  const [T, H, S, K] = layout === 'token-major' ? [q1, q2, k1, k2] : [q2, q1, k2, k1]
  const sizes = { B, T, S, H, K, D, E: value.dims[3] as number }
  checkHeads(sizes)
  checkLengths(sizes)
  return { ...sizes, storage: query.storage, query: query.data, key: key.data, value: value.data }
}

/** Memory of the results of a call. */
export interface Results {
  readonly storage: FloatType
  readonly output: FloatArray
  readonly lse?: Float32Array
}

/** @param rows query tokens of all sequences */
export function allocateResults(storage: FloatType, rows: number, { H, E }: HeadSizes, withLse = false): Results {
  return { storage, output: allocate(storage, rows * H * E), lse: withLse ? new Float32Array(rows * H) : undefined }
}

/** The results as tensors; `dims` are those of the output. */
export function finish({ storage, output, lse }: Results, dims: readonly number[]): Tensor | AttentionState {
  const tensor = storedTensor(output, storage, dims)
  return lse ? { output: tensor, lse: f32Tensor(lse, dims.slice(0, -1)) } : tensor
}

/** One sequence of a call. */
interface Sequence {
  /** Its number in the batch. */
  readonly b: number
  /** Where its query tokens begin among those of all sequences. */
  readonly firstRow: number
  /** T */
  readonly numTokens: number
  /** Position of query 0, when key j is at position j. */
  readonly firstPosition: number
  readonly segment: KeyValueSegment
  readonly rotation?: AttendArgs['rotation']
}

/** @param query of all sequences, `[rows, H, D]` */
export function toCall(
  { H, K, D, E }: HeadSizes,
  { alibiSlopes, ...form }: Form,
  query: FloatArray,
  { storage, output, lse }: Results,
  { b, firstRow, numTokens, firstPosition, segment, rotation }: Sequence,
): AttendArgs {
  const [from, to] = [firstRow * H, (firstRow + numTokens) * H]
  return {
    ...form,
    query: query.subarray(from * D, to * D),
    output: output.subarray(from * E, to * E),
    queryStorage: storage,
    lse: lse?.subarray(from, to),
    ...{ numTokens, numHeads: H, numKvHeads: K, headDim: D, valueDim: E, firstPosition },
    alibiSlopes: alibiSlopes(b),
    rotation,
    segments: [{ ...segment, storage, firstPosition: 0 }],
  }
}

/** The rows of a `[rows, K, D]` tensor from `first` on, `count` of them, without a copy. */
export function tokenMajor(
  { K, D, E }: HeadSizes,
  key: FloatArray,
  value: FloatArray,
  first: number,
  count: number,
): Pick<KeyValueSegment, 'keys' | 'values' | 'layout' | 'capacity'> {
  return {
    keys: key.subarray(first * K * D, (first + count) * K * D),
    values: value.subarray(first * K * E, (first + count) * K * E),
    layout: 'token-major',
    capacity: count,
  }
}

/** One after the other: each call has all threads. */
export async function attendEach(kernels: Kernels, calls: readonly AttendArgs[]): Promise<void> {
  const pause = pauses()
  for (const call of calls) {
    if (call.numTokens > 0) await kernels.attendAsync(call)
    await pause()
  }
}

/** Long enough to get much done, short enough that nobody notices. */
const milliseconds = 8

/** For loops of short calls, which don't leave the thread: lets others at it every few milliseconds. */
export function pauses(): () => Promise<void> | undefined {
  let began = performance.now()
  return () => {
    if (performance.now() - began < milliseconds) return undefined
    return new Promise((resolve) => {
      setTimeout(() => {
        began = performance.now()
        resolve()
      }, 0)
    })
  }
}
