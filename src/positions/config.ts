/**
 * Finds the rotary parameters of one kind of layer in config.json, where old and new transformers versions, and some
 * families, put them in different places.
 */
import { describe } from '../tensor/check.ts'
import { KvasirError } from '../tensor/error.ts'
import type { RotaryConfig, RotaryPairing } from './contract.ts'
import { type RotaryFamily, rotaryFamily } from './families.ts'
import { type Dictionary, invalid, optionalPositive, positive } from './parameters.ts'

const [local, global] = ['sliding_attention', 'full_attention']

/** A type and its numbers: plain data, equal for layers that share an encoding. */
export interface LayerRotary extends RotaryConfig {
  readonly type: string
  readonly pairing: RotaryPairing
}

/**
 * @param layerType of the layer's attention, where config.json or the family tells layers apart
 * @param headDim D; the rotary width is trunc(D * partial_rotary_factor)
 * @returns undefined: layers of this type are not rotated
 * @throws KvasirError `invalid-file` for values that make no sense, `unsupported` for forms that are not known
 */
export function readRotary(
  config: Dictionary,
  layerType: string | undefined,
  headDim: number,
): LayerRotary | undefined {
  const family = rotaryFamily(config)
  const found = findParameters(config, family, layerType)
  if (found === undefined) return undefined
  const { parameters, theta, originalMaxPositions } = found
  for (const [key, value] of Object.entries(parameters)) {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) continue
    throw new KvasirError(
      'unsupported',
      'positions',
      `config.json: expected numbers and lists, got an object at ${key}`,
    )
  }
  const type = parameters.rope_type ?? parameters.type ?? 'default'
  if (typeof type !== 'string') throw invalid('a string for rope_type', describe(type))
  const maxPositions = optionalPositive(config, 'max_position_embeddings')
  return {
    type: family.types?.[type] ?? type,
    pairing: readPairing(config, family),
    theta: positive({ rope_theta: parameters.rope_theta ?? theta }, 'rope_theta'),
    headDim,
    ...readWidth(config, family, parameters, headDim),
    ...(maxPositions !== undefined && { maxPositions }),
    ...(originalMaxPositions !== undefined && { originalMaxPositions }),
    parameters,
  }
}

/** True when rotation may differ between types of layers, so that they must be known. */
export function dependsOnLayerType(config: Dictionary): boolean {
  const family = rotaryFamily(config)
  return isLocalGlobal(config, family) || isNested(dictionaryOf(config, family), config)
}

interface Found {
  readonly parameters: Dictionary
  /** Where `parameters` has no rope_theta. */
  readonly theta: unknown
  readonly originalMaxPositions: number | undefined
}

function findParameters(config: Dictionary, family: RotaryFamily, layerType = global): Found | undefined {
  const theta = config.rope_theta ?? config.rotary_emb_base ?? family.theta ?? 10000
  const outer = dictionaryOf(config, family)
  if (isLocalGlobal(config, family)) return findLocalGlobal(config, family, layerType, theta)
  if (!isNested(outer, config)) {
    // A top-level attribute wins over the dictionary, as in transformers (Phi-3); by layer type it is not looked at.
    const originalMaxPositions =
      optionalPositive(config, original) ?? optionalPositive(outer, original) ?? family.originalMaxPositions
    return { parameters: outer, theta, originalMaxPositions }
  }
  const entry = outer[layerType]
  if (entry === null) return undefined
  // transformers reads `truncate` beside the layer types, and nowhere else.
  const parameters = { ...asDictionary(entry, layerType), truncate: outer.truncate ?? null }
  return { parameters, theta, originalMaxPositions: optionalPositive(parameters, original) }
}

const original = 'original_max_position_embeddings'

/** Sliding layers have plain RoPE with a theta of their own; what else there is concerns the other layers. */
function findLocalGlobal(config: Dictionary, family: RotaryFamily, layerType: string, theta: unknown): Found {
  const parameters = dictionary(config, 'rope_parameters') ?? {}
  const nested = isNested(parameters, config) ? parameters : {}
  const own = nested[layerType] ?? undefined
  const entry = own === undefined ? {} : asDictionary(own, layerType)
  if (layerType === local) {
    const localTheta = family.localTheta === 'theta' ? theta : family.localTheta
    return { parameters: entry, theta: config.rope_local_base_freq ?? localTheta, ...originalOf(entry) }
  }
  const flat = dictionary(config, 'rope_scaling') ?? (nested === parameters ? {} : parameters)
  const merged = { ...entry, ...flat }
  return { parameters: merged, theta, ...originalOf(merged) }
}

function originalOf(parameters: Dictionary): { originalMaxPositions: number | undefined } {
  return { originalMaxPositions: optionalPositive(parameters, original) }
}

function isLocalGlobal(config: Dictionary, family: RotaryFamily): boolean {
  return family.localTheta !== undefined || (config.rope_local_base_freq ?? undefined) !== undefined
}

/** With both forms present the old one wins, as in transformers 5; outer keys only fill gaps. */
function dictionaryOf(config: Dictionary, family: RotaryFamily): Dictionary {
  return dictionary(config, 'rope_scaling') ?? dictionary(config, 'rope_parameters') ?? family.parameters ?? {}
}

/** An empty one counts as absent, as in transformers. */
function dictionary(config: Dictionary, key: string): Dictionary | undefined {
  const value = config[key] ?? undefined
  if (value === undefined) return undefined
  const found = asDictionary(value, key)
  return Object.keys(found).length ? found : undefined
}

function asDictionary(value: unknown, key: string): Dictionary {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Dictionary
  throw invalid(`an object for ${key}`, describe(value))
}

/** Parameters by type of layer: keys are the types that the config names, or end like them. */
function isNested(parameters: Dictionary, { layer_types: types }: Dictionary): boolean {
  const names: readonly unknown[] = Array.isArray(types) ? types : []
  return Object.keys(parameters).some((key) => names.includes(key) || key.endsWith('_attention'))
}

function readPairing(config: Dictionary, family: RotaryFamily): RotaryPairing {
  const flag = config.rope_interleave ?? undefined
  if (flag === undefined) return family.pairing ?? 'half'
  if (typeof flag === 'boolean') return flag ? 'interleaved' : 'half'
  throw invalid('true or false for rope_interleave', describe(flag))
}

function readWidth(
  config: Dictionary,
  family: RotaryFamily,
  parameters: Dictionary,
  headDim: number,
): { partialFactor: number; width: number } {
  const key = 'partial_rotary_factor'
  const given = parameters[key] ?? config[key] ?? config.rotary_pct ?? undefined
  const width = given === undefined ? (optionalPositive(config, 'rotary_dim') ?? family.rotaryDim) : undefined
  if (width !== undefined) return { partialFactor: width / headDim, width }
  const partialFactor = positive({ [key]: given }, key, family.partialFactor ?? 1)
  return { partialFactor, width: Math.trunc(headDim * partialFactor) }
}
