/**
 * Model folders as published for transformers.js and by onnxruntime-genai: which `.onnx` file is meant, and its graph
 * with attention taken over. `onnx/model_q4.onnx` and its like, or `model.onnx` in the folder itself.
 */
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, didYouMean } from '../tensor/check.ts'
import { invalidArgument, KvasirError } from '../tensor/error.ts'
import type { GraphEnds, ModelSpec } from './architectures/index.ts'
import { openOnnxFile } from './onnx-file.ts'
import type { OnnxModel } from './schema.ts'
import { type GraphTable, type OpenGraph, takeOver } from './takeover/index.ts'

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

export interface PublishedModel {
  readonly file: string
  readonly dtype: OnnxDtype
  readonly spec: ModelSpec
  readonly model: OnnxModel
  readonly ends: GraphEnds
  readonly tables: ReadonlyMap<string, GraphTable>
  /** The form that each attention had. */
  readonly kinds: readonly string[]
  /** Attention that stays in ONNX Runtime's hands, and why. */
  readonly warnings: readonly string[]
}

/** One `.onnx` file of a folder. */
export interface OnnxCandidate {
  readonly file: string
  readonly dtype: OnnxDtype
}

/** The decoders in a folder, in the order of preference. */
export async function listOnnxFiles(folder: string): Promise<OnnxCandidate[]> {
  const found: OnnxCandidate[] = []
  for (const inside of folders) {
    const names = new Set(await readdir(join(folder, inside)).catch(() => [] as string[]))
    for (const base of baseNames) {
      for (const [dtype, suffix] of Object.entries(onnxDtypes)) {
        const name = `${base}${suffix}.onnx`
        if (names.has(name)) found.push({ file: join(folder, inside, name), dtype: dtype as OnnxDtype })
      }
    }
  }
  return found
}

/**
 * Opens the decoder of a folder; reads no weights.
 * @param config config.json as parsed
 * @param dtype which variant (default: what config.json says for transformers.js, else the first that is there)
 * @throws KvasirError `not-found` when there is no such file, `unsupported` for a graph that can't be taken over
 */
export async function openOnnxFolder(
  folder: string,
  config: Readonly<Record<string, unknown>>,
  { dtype, openGraph }: { readonly dtype?: OnnxDtype | undefined; readonly openGraph: OpenGraph },
): Promise<PublishedModel> {
  const candidate = await chooseFile(folder, dtype ?? configuredDtype(config))
  const original = await openOnnxFile(candidate.file)
  const maxPositions = positiveInteger(config.max_position_embeddings ?? config.n_positions) ?? 1 << 17
  const { vocabSize, hiddenSize, ...taken } = await takeOver(original, {
    openGraph,
    maxPositions: Math.min(Math.max(maxPositions, 1 << 13), 1 << 18),
  })
  const architecture = typeof config.model_type === 'string' ? config.model_type : 'onnx'
  return { ...candidate, ...taken, spec: { architecture, vocabSize, hiddenSize, hasImportance: false } }
}

async function chooseFile(folder: string, dtype: OnnxDtype | undefined): Promise<OnnxCandidate> {
  const all = await listOnnxFiles(folder)
  const chosen = dtype === undefined ? all[0] : all.find((candidate) => candidate.dtype === dtype)
  if (chosen) return chosen
  const names = all.map((candidate) => candidate.dtype)
  const expected = dtype === undefined ? 'a decoder such as onnx/model.onnx' : `a decoder of dtype "${dtype}"`
  const got = names.length ? names.join(', ') : 'none'
  throw new KvasirError('not-found', 'onnx', `expected ${expected} in ${folder}, got ${got}`)
}

/** `transformers.js_config.dtype`: what the publisher recommends, when it is one dtype for all. */
function configuredDtype(config: Readonly<Record<string, unknown>>): OnnxDtype | undefined {
  const settings = config['transformers.js_config'] as { readonly dtype?: unknown } | undefined
  const dtype = settings?.dtype
  return typeof dtype === 'string' && Object.hasOwn(onnxDtypes, dtype) ? (dtype as OnnxDtype) : undefined
}

/** @throws KvasirError `invalid-argument`, naming the nearest dtype */
export function checkDtype(dtype: unknown): asserts dtype is OnnxDtype {
  const known = Object.keys(onnxDtypes)
  if (typeof dtype === 'string' && known.includes(dtype)) return
  const got = `${describe(dtype)}${didYouMean(dtype, known)}`
  throw invalidArgument('runtime', `expected dtype to be one of: ${known.join(', ')}, got ${got}`)
}

/** Whether a folder holds safetensors, which are preferred to ONNX files. */
export async function hasSafetensors(folder: string): Promise<boolean> {
  for (const name of ['model.safetensors', 'model.safetensors.index.json']) {
    const info = await stat(join(folder, name)).catch(() => undefined)
    if (info?.isFile()) return true
  }
  return false
}

function positiveInteger(value: unknown): number | undefined {
  return Number.isSafeInteger(value) && (value as number) > 0 ? (value as number) : undefined
}
