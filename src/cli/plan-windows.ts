/** Which layers of a model have a sliding window of their own, from config.json. */
import type { ConfigReader } from '../onnx/config-reader.ts'
import { rotatedLayers } from '../positions/index.ts'
import { KvasirError } from '../tensor/error.ts'

/** Every so many layers one has no window, in models whose config.json leaves this to the code. */
const patterns: Readonly<Record<string, number>> = {
  ...{ gemma2: 2, gemma3: 6, gemma3_text: 6, cohere2: 4 },
  ...{ gpt_oss: 2, olmo3: 4, exaone4: 4 },
}

/**
 * For each layer its window in tokens, or null where it sees everything.
 * @throws KvasirError `invalid-file` for keys that contradict each other, `unsupported` for kinds of layers that keep
 * no K and V
 */
export function readLayerWindows(config: ConfigReader, numLayers: number): (number | null)[] {
  const types = config.value('layer_types')
  if (types !== undefined) return fromTypes(config, types, numLayers)
  // Llama 4: layers that are rotated see what is in their chunk.
  if (config.has('attention_chunk_size')) {
    const chunk = config.count('attention_chunk_size')
    return rotatedLayers(config.all, numLayers).map((isRotated) => (isRotated ? chunk : null))
  }
  const layers = Array.from({ length: numLayers }, (_, layer) => layer)
  // Qwen2 and its kin write the size even where it is switched off, and then only the later layers use it.
  const isSwitched = config.has('max_window_layers') || config.has('use_sliding_window')
  if (!config.has('sliding_window') || (isSwitched && config.value('use_sliding_window') !== true)) {
    return layers.map(() => null)
  }
  const window = config.count('sliding_window')
  const from = config.has('max_window_layers') ? Number(config.value('max_window_layers')) : 0
  const pattern = readPattern(config)
  return layers.map((layer) => (layer >= from && (layer + 1) % pattern !== 0 ? window : null))
}

function readPattern(config: ConfigReader): number {
  for (const key of ['sliding_window_pattern', '_sliding_window_pattern']) {
    if (config.has(key)) return config.count(key)
  }
  return patterns[String(config.value('model_type'))] ?? Number.POSITIVE_INFINITY
}

/** Where each kind of layer says how far it sees; null: all the way. */
const windowKeys: Readonly<Record<string, string | null>> = {
  full_attention: null,
  sliding_attention: 'sliding_window',
  chunked_attention: 'attention_chunk_size',
}

function fromTypes(config: ConfigReader, types: unknown, numLayers: number): (number | null)[] {
  if (!Array.isArray(types) || types.length !== numLayers) {
    throw config.invalid('layer_types', `an array of ${numLayers}`, types)
  }
  return types.map((type) => {
    const key = typeof type === 'string' && Object.hasOwn(windowKeys, type) ? windowKeys[type] : undefined
    if (key !== undefined) return key === null ? null : config.count(key)
    const known = Object.keys(windowKeys).join(', ')
    throw new KvasirError(
      'unsupported',
      'cli',
      `${config.file}: expected each of "layer_types" to be one of ${known}, got ${JSON.stringify(type)}`,
    )
  })
}
