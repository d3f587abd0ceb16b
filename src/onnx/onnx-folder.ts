/**
 * Model folders as published for transformers.js and by onnxruntime-genai: which `.onnx` file is meant, and its graph
 * with attention taken over. `onnx/model_q4.onnx` and its like, or `model.onnx` in the folder itself.
 */
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { KvasirError, withPath } from '../tensor/error.ts'
import type { GraphEnds, ModelSpec } from './architectures/index.ts'
import { openOnnxFile } from './onnx-file.ts'
import { chooseDecoder, findDecoders, type OnnxCandidate, type OnnxDtype } from './onnx-names.ts'
import type { OnnxModel } from './schema.ts'
import { type GraphTable, type OpenGraph, takeOver } from './takeover/index.ts'

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

/** The decoders in a folder, in the order of preference. */
export async function listOnnxFiles(folder: string): Promise<OnnxCandidate[]> {
  const inside = await readdir(folder).catch(() => [] as string[])
  const below = await readdir(join(folder, 'onnx')).catch(() => [] as string[])
  return findDecoders([...inside, ...below.map((name) => `onnx/${name}`)])
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
  const chosen = await chooseFile(folder, dtype, config)
  const file = join(folder, chosen.path)
  const maxPositions = positiveInteger(config.max_position_embeddings ?? config.n_positions) ?? 1 << 17
  const reach = Math.min(Math.max(maxPositions, 1 << 13), 1 << 18)
  const taking = openOnnxFile(file).then((original) => takeOver(original, { openGraph, maxPositions: reach }))
  const { vocabSize, hiddenSize, ...taken } = await taking.catch((error: unknown) => {
    throw withPath(error, file)
  })
  const architecture = typeof config.model_type === 'string' ? config.model_type : 'onnx'
  return { file, dtype: chosen.dtype, ...taken, spec: { architecture, vocabSize, hiddenSize, hasImportance: false } }
}

async function chooseFile(
  folder: string,
  dtype: OnnxDtype | undefined,
  config: Readonly<Record<string, unknown>>,
): Promise<OnnxCandidate> {
  const all = await listOnnxFiles(folder)
  const chosen = chooseDecoder(all, dtype, config)
  if (chosen) return chosen
  const names = all.map((candidate) => candidate.dtype)
  const expected = dtype === undefined ? 'a decoder such as onnx/model.onnx' : `a decoder of dtype "${dtype}"`
  const got = names.length ? names.join(', ') : 'none'
  throw new KvasirError('not-found', 'onnx', `expected ${expected} in ${folder}, got ${got}`)
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
