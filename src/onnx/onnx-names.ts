/** Names of the decoders that are published for transformers.js and by onnxruntime-genai, and which of several is meant. */
import { posix } from 'node:path'
import { describe, didYouMean } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'

/** File name suffixes of transformers.js, by dtype, in the order of preference where none is asked for. */
export const onnxDtypes = {
  fp32: '',
  fp16: '_fp16',
  q8: '_quantized',
  int8: '_int8',
  uint8: '_uint8',
  q4f16: '_q4f16',
  q4: '_q4',
  bnb4: '_bnb4',
  q2: '_q2',
  q2f16: '_q2f16',
  q1: '_q1',
  q1f16: '_q1f16',
} as const

export type OnnxDtype = keyof typeof onnxDtypes

/** Names of decoders, the newer first. */
const baseNames = ['model', 'decoder_model_merged', 'decoder_with_past_model']
const folders = ['onnx', '.']

/** One `.onnx` file. */
export interface OnnxCandidate {
  /** As it was given. */
  readonly path: string
  /** The name without suffix. */
  readonly base: string
  readonly dtype: OnnxDtype
}

/** The decoders among paths that are relative to the folder of a model, in the order of preference. */
export function findDecoders(paths: Iterable<string>): OnnxCandidate[] {
  const there = new Set(paths)
  const dtypes = Object.entries(onnxDtypes) as [OnnxDtype, string][]
  return folders.flatMap((folder) =>
    baseNames.flatMap((base) =>
      dtypes.flatMap(([dtype, suffix]) => {
        const path = posix.join(folder, `${base}${suffix}.onnx`)
        return there.has(path) ? [{ path, base, dtype }] : []
      }),
    ),
  )
}

/**
 * Which of them is meant: that of `dtype`, else what the publisher recommends (`transformers.js_config.dtype`: one
 * dtype, or one for each base name), else the first.
 * @param config config.json as parsed
 */
export function chooseDecoder(
  candidates: readonly OnnxCandidate[],
  dtype: OnnxDtype | undefined,
  config: Readonly<Record<string, unknown>>,
): OnnxCandidate | undefined {
  if (dtype !== undefined) return candidates.find((candidate) => candidate.dtype === dtype)
  const settings = config['transformers.js_config'] as { readonly dtype?: unknown } | null | undefined
  const named = settings?.dtype as string | Readonly<Record<string, unknown>> | null | undefined
  const isMeant = ({ base, dtype: own }: OnnxCandidate) => own === (typeof named === 'object' ? named?.[base] : named)
  return candidates.find(isMeant) ?? candidates[0]
}

/** Throws unless `dtype` is one of `onnxDtypes`. @throws KvasirError `invalid-argument`, naming the nearest dtype */
export function checkDtype(dtype: unknown): asserts dtype is OnnxDtype {
  const known = Object.keys(onnxDtypes)
  if (typeof dtype === 'string' && known.includes(dtype)) return
  const got = `${describe(dtype)}${didYouMean(dtype, known)}`
  throw invalidArgument('runtime', `expected dtype to be one of: ${known.join(', ')}, got ${got}`)
}
