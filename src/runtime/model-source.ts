/** What a model folder holds, made into one graph that can be cut: a checkpoint, or a published ONNX decoder. */
import { join } from 'node:path'
import {
  type AttentionNode,
  checkDtype,
  externalRoot,
  type GraphEnds,
  type GraphTable,
  hasSafetensors,
  listOnnxFiles,
  type ModelSpec,
  nodeEncodings,
  type OnnxDtype,
  type OnnxModel,
  openCheckpoint,
  openOnnxFolder,
  type PublishedModel,
} from '../onnx/index.ts'
import { layerRotaryEncodings, type RotaryEncoding } from '../positions/index.ts'
import { invalidArgument, isKvasirError } from '../tensor/error.ts'
import { type Json, readOptionalJson } from './json-file.ts'
import { quantizedModel } from './quantized-cache.ts'
import { agrees, type RotarySource } from './rotation.ts'
import { smallGraphs } from './small-graph.ts'

export interface ModelSource {
  readonly config: Json
  readonly spec: ModelSpec
  /** The graph to cut. */
  readonly model: OnnxModel
  /** The same before quantization, whose tensors have their plain shapes. */
  readonly plain: OnnxModel
  readonly ends: GraphEnds
  /** What turns queries and keys of each attention node. */
  readonly rotary: (attention: readonly AttentionNode[]) => (RotarySource | undefined)[]
  /** Whether ONNX Runtime should repack weights: a copy of each, but faster products. */
  readonly prepack: boolean
  /** Of an ONNX file: which one, and the form that each of its attentions had. */
  readonly published?: Pick<PublishedModel, 'file' | 'dtype' | 'kinds' | 'warnings'>
}

export interface SourceOptions {
  readonly quantize?: 'int8' | 'int4' | undefined
  readonly dtype?: OnnxDtype | undefined
}

/**
 * Opens a folder: safetensors where there are any and no `dtype` of an ONNX file is asked for, else ONNX.
 * @throws KvasirError as `openCheckpoint` and `openOnnxFolder`; `invalid-argument` for options of the other kind
 */
export async function openSource(folder: string, options: SourceOptions): Promise<ModelSource> {
  if (options.dtype !== undefined) checkDtype(options.dtype)
  const isOnnx =
    options.dtype !== undefined || (!(await hasSafetensors(folder)) && (await listOnnxFiles(folder)).length > 0)
  return isOnnx ? openPublished(folder, options) : openWeights(folder, options)
}

async function openWeights(folder: string, { quantize }: SourceOptions): Promise<ModelSource> {
  const checkpoint = await openCheckpoint(folder)
  const { config, spec, model: plain, ends } = checkpoint
  const model = quantize ? await quantizedModel(checkpoint, quantize) : plain
  const rotary = (attention: readonly AttentionNode[]) => nodeEncodings(checkpoint, attention)
  return { config, spec, model, plain, ends, rotary, prepack: quantize !== undefined }
}

async function openPublished(folder: string, { quantize, dtype }: SourceOptions): Promise<ModelSource> {
  if (quantize !== undefined) {
    const instead = 'choose one of its files by dtype instead'
    throw invalidArgument('runtime', `expected no quantize for a folder of ONNX files, got "${quantize}"; ${instead}`)
  }
  // Where there is no config.json, the graph itself says what is needed.
  const config = (await readOptionalJson(join(folder, 'config.json'))) ?? {}
  const openGraph = smallGraphs(externalRoot(folder))
  const { spec, model, ends, tables, kinds, warnings, ...file } = await openOnnxFolder(folder, config, {
    dtype,
    openGraph,
  })
  const rotary = (attention: readonly AttentionNode[]) => tableSources(config, tables, attention)
  return { config, spec, model, plain: model, ends, rotary, prepack: true, published: { ...file, kinds, warnings } }
}

/** The encoding of config.json where it gives the graph's own numbers, for then it goes on for ever; else the table. */
function tableSources(
  config: Json,
  tables: ReadonlyMap<string, GraphTable>,
  attention: readonly AttentionNode[],
): (RotarySource | undefined)[] {
  const encodings = configEncodings(config, attention)
  const chosen = new Map(
    [...tables].map(([key, table]) => [key, encodings.find((item) => agrees(item, table)) ?? table]),
  )
  return attention.map(({ rotary = 'none' }) => chosen.get(rotary))
}

function configEncodings(config: Json, attention: readonly AttentionNode[]): RotaryEncoding[] {
  try {
    const headDims = attention.map(({ headDim }) => headDim)
    const all = layerRotaryEncodings(config, attention.length, headDims)
    return [...new Set(all)].filter((encoding) => encoding !== undefined)
  } catch (error) {
    if (isKvasirError(error)) return [] // the tables of the graph say it all
    throw error
  }
}
