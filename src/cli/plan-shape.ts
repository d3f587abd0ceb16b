/**
 * The shape of a decoder's attention from its config.json, of any family that Hugging Face's transformers knows by the
 * usual keys. For counting only: nothing says that Kvasir can run the model. What can't be counted by these keys
 * (latent attention, state-space layers, layers of different shapes) is refused instead of counted wrongly.
 */
import { ConfigReader } from '../onnx/config-reader.ts'
import { readJson } from '../onnx/index.ts'
import { describe } from '../tensor/check.ts'
import { KvasirError } from '../tensor/error.ts'
import { readLayerWindows } from './plan-windows.ts'

export interface PlanShape {
  /** `model_type`, if the file has one. */
  readonly modelType?: string
  readonly numLayers: number
  readonly numHeads: number
  readonly numKvHeads: number
  readonly headDim: number
  readonly valueDim: number
  readonly hasImportance: boolean
  /** For each layer the sliding window that the model itself has, or null. */
  readonly layerWindows: readonly (number | null)[]
  /** W that the model was trained with, where its importance has one. */
  readonly trainedWindow?: number
}

/** Names for the same thing, the commonest first. */
const names = {
  layers: ['num_hidden_layers', 'n_layer', 'num_layers'],
  heads: ['num_attention_heads', 'n_head'],
  kvHeads: ['num_key_value_heads', 'num_kv_heads', 'n_head_kv', 'multi_query_group_num'],
  hidden: ['hidden_size', 'n_embd'],
  headDim: ['head_dim', 'kv_channels'],
} as const

const maxLayers = 65536

/** Keys that say that the cache is not K and V of one shape in all layers. */
const uncountable: Readonly<Record<string, string>> = {
  kv_lora_rank: 'multi-head latent attention',
  num_kv_shared_layers: 'layers that share K and V',
  global_head_dim: 'layers of different head dims',
  num_global_key_value_heads: 'layers of different KV heads',
  num_key_value_heads_per_layer: 'layers of different KV heads',
  block_configs: 'layers of different shapes',
  cross_attention_layers: 'cross-attention',
  attn_layer_period: 'layers without attention',
  attn_layer_indices: 'layers without attention',
  layers_block_type: 'layers without attention',
  hybrid_override_pattern: 'layers without attention',
  full_attention_interval: 'layers without attention',
  full_attn_idxs: 'layers without attention',
  hybrid_layer_ids: 'layers without attention',
  block_types: 'layers without attention',
  _block_types: 'layers without attention',
  ssm_cfg: 'layers without attention',
}

/**
 * @throws KvasirError `not-found` or `invalid-file`: no such file, no JSON, keys absent or wrong; `unsupported`: a model
 * whose cache these keys don't describe
 */
export async function readPlanShape(file: string): Promise<PlanShape> {
  return toPlanShape(await readJson(file), file)
}

/** The same from the object that the file holds. */
export function toPlanShape(json: unknown, file: string): PlanShape {
  const outer = new ConfigReader(json, file)
  const text = outer.value('text_config') // models that also see or hear keep their decoder here
  const config = text === undefined ? outer : new ConfigReader(text, `${file} (text_config)`)
  for (const reader of new Set([outer, config])) refuseUncountable(reader)
  const numLayers = count(config, names.layers)
  // Each has a line of its own in what is counted: a damaged number must not ask for gigabytes.
  if (numLayers > maxLayers) throw config.invalid(names.layers[0], `at most ${maxLayers}`, numLayers)
  const numHeads = count(config, names.heads)
  const numKvHeads = isMultiQuery(config) ? 1 : count(config, names.kvHeads, numHeads)
  if (numHeads % numKvHeads) throw config.invalid(names.kvHeads[0], `a divisor of ${numHeads}`, numKvHeads)
  const headDim = readHeadDim(config, numHeads)
  const modelType = config.value('model_type')
  const trainedWindow = config.has('keep_window_size') ? config.count('keep_window_size') : undefined
  return {
    modelType: typeof modelType === 'string' ? modelType : undefined,
    ...{ numLayers, numHeads, numKvHeads, headDim, valueDim: headDim, trainedWindow },
    hasImportance: trainedWindow !== undefined,
    layerWindows: readLayerWindows(config, numLayers),
  }
}

function refuseUncountable(config: ConfigReader): void {
  if (config.value('is_encoder_decoder') === true) throw unsupported(config, 'is_encoder_decoder', 'cross-attention')
  for (const [key, what] of Object.entries(uncountable)) {
    const value = config.value(key)
    if (value !== undefined && value !== 0) throw unsupported(config, key, what)
  }
}

function unsupported({ file }: ConfigReader, key: string, what: string): KvasirError {
  return new KvasirError(
    'unsupported',
    'cli',
    `${file}: expected a decoder whose layers all keep K and V of one shape, got "${key}" (${what})`,
  )
}

/** Falcon's first generation: with `multi_query` all query heads share one KV head, whatever the other keys say. */
function isMultiQuery(config: ConfigReader): boolean {
  return config.value('multi_query') === true && config.value('new_decoder_architecture') !== true
}

function readHeadDim(config: ConfigReader, numHeads: number): number {
  const named = names.headDim.find((name) => config.has(name))
  if (named) return config.count(named)
  const hidden = count(config, names.hidden)
  if (hidden % numHeads === 0) return hidden / numHeads
  throw config.invalid('head_dim', `it, or a hidden size that is a multiple of ${numHeads} heads,`, hidden)
}

/** The first of the keys that the file has. */
function count(config: ConfigReader, keys: readonly string[], fallback?: number): number {
  const found = keys.find((key) => config.has(key))
  if (found) return config.count(found)
  if (fallback !== undefined) return fallback
  const list = keys.map((key) => JSON.stringify(key)).join(' or ')
  throw new KvasirError('invalid-file', 'cli', `${config.file}: expected ${list}, got ${describe(undefined)}`)
}
