/** Which layers are rotated, and by which of the parameters that config.json gives by type of layer. */
import { checkInteger, checkObject, describe } from '../tensor/check.ts'
import { dependsOnLayerType, type LayerRotary, readRotary } from './config.ts'
import { rotaryFamily } from './families.ts'
import { type Dictionary, invalid } from './parameters.ts'

/**
 * What each layer's rotation is made from.
 * @param headDims `[L]`
 * @returns `[L]`; undefined: the layer is not rotated (NoPE)
 */
export function readLayers(config: Dictionary, headDims: readonly number[]): (LayerRotary | undefined)[] {
  const isSlidingOnly = rotaryFamily(config).rotatesSlidingOnly === true && config.sliding_window !== null
  // Elsewhere types of layers are about windows, which is for others to read.
  const types = isSlidingOnly || dependsOnLayerType(config) ? layerTypes(config, headDims.length) : undefined
  const rotated = rotatedLayers(config, headDims.length)
  return headDims.map((headDim, layer) => {
    const type = types?.[layer]
    if (!rotated[layer] || (isSlidingOnly && type !== 'sliding_attention')) return undefined
    return readRotary(config, type, headDim)
  })
}

/**
 * The type of each layer's attention: from layer_types, whose items beyond the last layer are ignored, else from the
 * pattern "every n-th layer is full_attention" of config.json or its model_type.
 * @returns `[L]`
 * @throws KvasirError `invalid-file` when neither is there, or makes no sense; `invalid-argument` for other arguments
 */
export function layerTypes(config: Dictionary, numLayers: number): readonly string[] {
  checkModel(config, numLayers)
  const types = config.layer_types ?? undefined
  if (types !== undefined) {
    if (Array.isArray(types) && types.length >= numLayers && types.every((type) => typeof type === 'string'))
      return types.slice(0, numLayers)
    throw invalid(`a list of ${numLayers} strings for layer_types`, describe(types))
  }
  const given = config._sliding_window_pattern ?? config.sliding_window_pattern
  const pattern = given ?? rotaryFamily(config).slidingWindowPattern
  if (pattern === undefined) throw invalid('layer_types, since not all layers are rotated alike', 'undefined')
  if (!isCount(pattern)) throw invalid('an integer above 0 for sliding_window_pattern', describe(pattern))
  return Array.from({ length: numLayers }, (_, i) => ((i + 1) % pattern === 0 ? 'full_attention' : 'sliding_attention'))
}

/**
 * Whether each layer's queries and keys are rotated, by no_rope_layers or an interval. In `no_rope_layers` 1 means that
 * a layer does use RoPE, in spite of the name; items beyond the last layer are ignored.
 * @returns `[L]`
 * @throws KvasirError as `layerTypes`
 */
export function rotatedLayers(config: Dictionary, numLayers: number): readonly boolean[] {
  checkModel(config, numLayers)
  const list = config.no_rope_layers ?? []
  if (!Array.isArray(list) || list.some((value) => value !== 0 && value !== 1)) {
    throw invalid('a list of 0 and 1 for no_rope_layers', describe(list))
  }
  if (list.length > 0) {
    if (list.length >= numLayers) return list.slice(0, numLayers).map((value) => value === 1)
    throw invalid(`a list of ${numLayers} numbers for no_rope_layers`, describe(list))
  }
  const interval = config.no_rope_layer_interval ?? rotaryFamily(config).noRopeInterval
  if (interval === undefined) return new Array(numLayers).fill(true)
  if (!isCount(interval)) throw invalid('an integer above 0 for no_rope_layer_interval', describe(interval))
  return Array.from({ length: numLayers }, (_, i) => (i + 1) % interval !== 0)
}

function checkModel(config: unknown, numLayers: number): void {
  checkObject('positions', 'a model', config)
  checkNumLayers(numLayers)
}

/** More than any model has, and few enough that a damaged number is not answered with gigabytes. */
export function checkNumLayers(numLayers: unknown): asserts numLayers is number {
  checkInteger('positions', 'numLayers', numLayers, 1, 65536)
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) > 0
}
