/** A checkpoint folder as an ordinary ONNX folder, in the layout of transformers.js. */
import { copyFile, lstat, rename, rm, stat, writeFile } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import { checkChoice, checkKeys } from '../../tensor/check.ts'
import { invalidArgument, KvasirError } from '../../tensor/error.ts'
import { makeFolder } from '../../tensor/make-folder.ts'
import { temporaryBeside } from '../../tensor/temporary-file.ts'
import { isAttention, parseAttention } from '../attention-node.ts'
import { type Checkpoint, openCheckpoint } from '../checkpoint.ts'
import type { QuantizedBits } from '../quantize.ts'
import { nodeEncodings } from '../rotary-encodings.ts'
import { uncutModel } from './uncut.ts'
import type { FloatType } from './weight-plan.ts'
import { writeModel } from './write-model.ts'

interface DtypeEntry {
  /** What transformers.js calls it. */
  readonly name: string
  /** Of the file, after "model". */
  readonly suffix: string
  readonly type: FloatType
  readonly bits?: QuantizedBits
}

/** What an export can be stored as. Quantized ones compute attention in f32. */
export const exportDtypes = {
  f32: { name: 'fp32', suffix: '', type: 'f32' },
  f16: { name: 'fp16', suffix: '_fp16', type: 'f16' },
  int8: { name: 'int8', suffix: '_int8', type: 'f32', bits: 8 },
  int4: { name: 'q4', suffix: '_q4', type: 'f32', bits: 4 },
} as const satisfies Record<string, DtypeEntry>

export type ExportDtype = keyof typeof exportDtypes

export interface ExportOptions {
  /** Default f32. */
  readonly dtype?: ExportDtype
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void
  readonly signal?: AbortSignal
  /** Weights beyond this many bytes in all go into files beside the graph (default 1 GiB). */
  readonly maxInlineBytes?: number
  /** Size of those files (default just below 2 GiB, what one buffer of a browser holds). */
  readonly maxFileBytes?: number
}

export interface ExportResult {
  readonly folder: string
  /** Paths in it, the model first. */
  readonly files: readonly { readonly path: string; readonly bytes: number }[]
  readonly dtype: ExportDtype
}

/** Files that are taken over as they are, where the checkpoint has them. */
const copiedFiles = [
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'chat_template.jinja',
  'chat_template.json',
  'vocab.json',
  'merges.txt',
  'tokenizer.model',
  'LICENSE',
]

/**
 * Writes the model of a checkpoint as one graph for stock ONNX Runtime (1.24 or newer, for windows): inputs `input_ids`,
 * `attention_mask` and `past_key_values.N.key` and `.value`, outputs `logits` and `present.N.key` and `.value`; rows of
 * a batch are padded on the right. The folder appears whole or not at all.
 * @param output a folder that does not exist yet
 * @throws KvasirError `invalid-argument` when it does, `unsupported` for models that attend in a way that ONNX has no
 * operator for (Doge), `aborted` by the signal, else as `openCheckpoint`
 */
export async function exportOnnx(folder: string, output: string, options: ExportOptions = {}): Promise<ExportResult> {
  const known = ['dtype', 'onProgress', 'signal', 'maxInlineBytes', 'maxFileBytes']
  checkKeys('onnx', 'exportOnnx', options, known)
  const { dtype = 'f32', maxInlineBytes = 2 ** 30, maxFileBytes = 2 ** 31 - 2 ** 20 } = options
  checkChoice('onnx', 'dtype', dtype, Object.keys(exportDtypes))
  const target = resolve(output)
  await checkFree(target)
  const checkpoint = await openCheckpoint(folder)
  const { suffix, ...types }: DtypeEntry = exportDtypes[dtype]
  const { model, plans } = uncutModel(checkpoint, { ...types, ...readPositions(checkpoint) })
  const temporary = temporaryBeside(target)
  try {
    await makeFolder(join(temporary, 'onnx'))
    const file = join(temporary, 'onnx', `model${suffix}.onnx`)
    const { onProgress = () => {}, signal } = options
    const beside = await writeModel(file, model, plans, { maxInlineBytes, maxFileBytes, onProgress, signal })
    const names = [file, ...beside].map((path) => `onnx/${basename(path)}`)
    await writeConfig(temporary, checkpoint, types.name, names)
    const copied = await copyFiles(folder, temporary)
    const files = await measure(temporary, [...names, 'config.json', ...copied])
    if (signal?.aborted) throw new KvasirError('aborted', 'onnx', 'the export was interrupted')
    await rename(temporary, target)
    return { folder: target, files, dtype }
  } catch (error) {
    await rm(temporary, { recursive: true, force: true })
    throw error
  }
}

async function checkFree(target: string): Promise<void> {
  const isTaken = await lstat(target).then(
    () => true,
    () => false,
  )
  if (isTaken) throw invalidArgument('onnx', `expected a folder that does not exist yet, got ${target}, which does`)
}

function readPositions(checkpoint: Checkpoint) {
  const { spec, model } = checkpoint
  if (spec.hasImportance) {
    const reason = 'its attention chooses tokens by importance, and ONNX has no operator for that'
    throw new KvasirError(
      'unsupported',
      'onnx',
      `${spec.architecture} can't be written as an ordinary ONNX graph: ${reason}`,
    )
  }
  if (spec.maxPositions === undefined) {
    throw new KvasirError('unsupported', 'onnx', `expected the number of positions of ${spec.architecture}, got none`)
  }
  const nodes = model.graph!.node.filter(isAttention).map(parseAttention)
  return { maxPositions: spec.maxPositions, rotary: nodeEncodings(checkpoint, nodes) }
}

/** With what transformers.js has to know to load the model without options. */
async function writeConfig(
  folder: string,
  { config }: Checkpoint,
  dtype: string,
  files: readonly string[],
): Promise<void> {
  const numData = files.length - 1
  const settings = { dtype, ...(numData > 0 && { use_external_data_format: numData }) }
  const changed = { ...config, 'transformers.js_config': settings }
  await writeFile(join(folder, 'config.json'), `${JSON.stringify(changed, null, 2)}\n`)
}

async function measure(folder: string, paths: readonly string[]): Promise<ExportResult['files']> {
  return Promise.all(paths.map(async (path) => ({ path, bytes: (await stat(join(folder, path))).size })))
}

async function copyFiles(from: string, to: string): Promise<string[]> {
  const copied: string[] = []
  for (const name of copiedFiles) {
    const error = await copyFile(join(from, name), join(to, name)).catch((cause: NodeJS.ErrnoException) => cause)
    if (error === undefined) copied.push(name)
    else if (error.code !== 'ENOENT') throw error
  }
  return copied
}
