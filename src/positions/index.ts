/** Position encodings by `rope_type`. One more is one more file and one line here. */
import { checkInteger, checkObject, describe, didYouMean } from '../tensor/check.ts'
import { invalidArgument, KvasirError } from '../tensor/error.ts'
import type { LayerRotary } from './config.ts'
import type { RotaryEncoding, RotaryEntry } from './contract.ts'
import { plainRope } from './default.ts'
import { dynamicRope } from './dynamic.ts'
import { checkNumLayers, readLayers } from './layers.ts'
import { linearRope } from './linear.ts'
import { llama3Rope } from './llama3.ts'
import { longRope } from './longrope.ts'
import { proportionalRope } from './proportional.ts'
import { yarnRope } from './yarn.ts'

export { alibiSlopes } from './alibi.ts'
export type * from './contract.ts'
export { layerTypes, rotatedLayers } from './layers.ts'
export { type RotateOptions, type RotationTable, rotateVectors } from './rotate.ts'
export { fillRotaryTable, rerotationTable } from './table.ts'

export const rotaryEncodings = {
  default: plainRope,
  linear: linearRope,
  dynamic: dynamicRope,
  yarn: yarnRope,
  longrope: longRope,
  llama3: llama3Rope,
  proportional: proportionalRope,
} as const satisfies Record<string, RotaryEntry>

/** That of the attention functions. */
const maxHeadDim = 65536

/** Other names: the first one of LongRoPE, and Qwen-VL's three streams of positions, which are equal on text. */
const aliases: Readonly<Record<string, string>> = { su: 'longrope', mrope: 'default' }

/**
 * The rotary encoding of each layer of a model; layers with the same numbers share one object.
 * @param config config.json as parsed (of the text model, where there are several)
 * @param numLayers L
 * @param headDim D, for all layers or `[L]`
 * @returns `[L]`; undefined: the layer's queries and keys are not rotated (NoPE)
 * @throws KvasirError `unsupported` naming the rope_type, `invalid-file` for values that are missing or make no sense
 */
export function layerRotaryEncodings(
  config: Readonly<Record<string, unknown>>,
  numLayers: number,
  headDim: number | readonly number[],
): (RotaryEncoding | undefined)[] {
  checkObject('positions', 'a model', config)
  checkNumLayers(numLayers)
  const headDims = Array.isArray(headDim) ? headDim : new Array<number>(numLayers).fill(headDim as number)
  if (headDims.length !== numLayers) {
    throw invalidArgument('positions', `expected ${numLayers} head dims, got ${headDims.length}`)
  }
  for (const value of headDims) checkInteger('positions', 'headDim', value, 1, maxHeadDim)
  const made = new Map<string, RotaryEncoding>()
  return readLayers(config, headDims).map((layer) => {
    if (layer === undefined) return undefined
    const key = JSON.stringify(layer)
    const encoding = made.get(key) ?? createEncoding(layer)
    made.set(key, encoding)
    return encoding
  })
}

/**
 * The rotary encoding of a model that has one for all layers.
 * @param numLayers L (default: as config.json says)
 * @throws KvasirError as `layerRotaryEncodings`, and `unsupported` for a model whose layers differ
 */
export function rotaryEncoding(
  config: Readonly<Record<string, unknown>>,
  headDim: number,
  numLayers = countLayers(config),
): RotaryEncoding {
  const [first, ...others] = new Set(layerRotaryEncodings(config, numLayers, headDim))
  if (first !== undefined && others.length === 0) return first
  const got = others.length ? 'layers that differ' : 'none'
  throw new KvasirError('unsupported', 'positions', `expected one rotary encoding for all layers, got ${got}`)
}

/** A part of config.json, made for layers that are alike, names neither their number nor their types. */
function countLayers(config: Readonly<Record<string, unknown>>): number {
  checkObject('positions', 'a model', config)
  const { num_hidden_layers: count, layer_types: types } = config
  return typeof count === 'number' ? count : Array.isArray(types) ? types.length : 1
}

function createEncoding({ type, pairing, ...config }: LayerRotary): RotaryEncoding {
  const name = Object.hasOwn(aliases, type) ? (aliases[type] as string) : type
  if (!Object.hasOwn(rotaryEncodings, name)) throw unknownType(type)
  return { name, pairing, ...rotaryEncodings[name as keyof typeof rotaryEncodings](config) }
}

function unknownType(type: string): KvasirError {
  const known = [...Object.keys(rotaryEncodings), ...Object.keys(aliases)]
  const got = `${describe(type)}${didYouMean(type, known)}`
  return new KvasirError('unsupported', 'positions', `expected a rope_type of: ${known.join(', ')}, got ${got}`)
}
