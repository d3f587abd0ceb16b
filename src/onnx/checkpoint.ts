/** A checkpoint folder (config.json, safetensors) as one ONNX graph with attention nodes. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { checkChoice } from '../tensor/check.ts'
import { KvasirError } from '../tensor/error.ts'
import { architectureNames, architectures, type GraphEnds, type ModelSpec } from './architectures/index.ts'
import { GraphBuilder } from './builder.ts'
import { ConfigReader } from './config-reader.ts'
import { unreadable } from './open-file.ts'
import type { OnnxModel } from './schema.ts'
import { openWeights, type Weights } from './weights.ts'

export interface Checkpoint {
  readonly folder: string
  readonly config: Readonly<Record<string, unknown>>
  readonly spec: ModelSpec
  readonly weights: Weights
  readonly model: OnnxModel
  readonly ends: GraphEnds
}

/**
 * Reads a folder and builds its graph; reads headers only, no weights.
 * @throws KvasirError `not-found` for a missing file, `invalid-file` for a broken one or a tensor that does not fit,
 * `unsupported` for an architecture or a setting that Kvasir does not compute
 */
export async function openCheckpoint(folder: string): Promise<Checkpoint> {
  const file = join(folder, 'config.json')
  const config = await readJson(file)
  const reader = new ConfigReader(config, file)
  const modelType = reader.value('model_type')
  try {
    checkChoice('onnx', `"model_type" in ${file}`, modelType, architectureNames)
  } catch (cause) {
    throw new KvasirError('unsupported', 'onnx', (cause as Error).message.replace('[kvasir:onnx] ', ''), { cause })
  }
  const { spec, buildGraph } = architectures[modelType](reader)
  const weights = await openWeights(folder)
  const graph = new GraphBuilder(weights)
  const ends = await buildGraph(graph)
  const model = graph.finish(ends.logits, ['T', spec.vocabSize])
  return {
    folder,
    config: config as Record<string, unknown>,
    spec,
    weights: graph.weights,
    model,
    ends: { ...ends, logits: 'logits' },
  }
}

/** What a JSON file holds. @throws KvasirError `not-found`, `denied` or `invalid-file` */
export async function readJson(file: string): Promise<unknown> {
  const text = await readFile(file, 'utf8').catch((cause: unknown) => {
    throw unreadable('onnx', file, cause)
  })
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new KvasirError('invalid-file', 'onnx', `${file}: expected JSON`, { cause })
  }
}
