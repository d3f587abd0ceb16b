/** Scorers (`kvasir train-scorer`) as safetensors files: numbers by layer, and in the metadata what they are for. */
import { createHash } from 'node:crypto'
import { readFileSync, statSync } from 'node:fs'
import type { CacheShape, ScoreTokens } from '../cache/contract.ts'
import { parseSafetensors, type TensorEntry, type TensorPlan, writeSafetensors } from '../onnx/index.ts'
import { featureVersion, type KeyRotation } from '../policies/scorer/features.ts'
import { createScorer, type ScorerLayer, type ScorerLayers } from '../policies/scorer/scorer.ts'
import { isKvasirError, KvasirError, reasonOf } from '../tensor/error.ts'

/** Beside the model, for `importance: 'learned'`. */
export const scorerFileName = 'scorer.safetensors'

export interface ScorerFile {
  readonly layers: ScorerLayers
  /** As `ScoreTokens` has it. */
  readonly recent: number
}

/** The model that a scorer is of. */
export interface ScorerModel {
  readonly shape: Pick<CacheShape, 'layers'>
  /** As `weightsIdentity` of fingerprint.ts gives it. */
  readonly identity: string
}

const format = 'kvasir-scorer'
const formatVersion = 1
/** Larger files are no scorers. */
const maxBytes = 2 ** 28
const fields = ['weight', 'bias', 'output', 'slope'] as const

/** Writes a scorer, whole or not at all. */
export async function writeScorer(
  file: string,
  { layers, recent }: ScorerFile,
  { shape, identity }: ScorerModel,
): Promise<void> {
  const tensors: TensorPlan[] = []
  const data: Uint8Array[] = []
  for (const [index, layer] of layers.entries()) {
    for (const field of layer ? fields : []) {
      const numbers = (layer as ScorerLayer)[field]
      tensors.push({
        name: `layers.${index}.${field}`,
        dtype: 'F32',
        shape: dimsOf(layer as ScorerLayer, field, shape.layers[index]!.numKvHeads),
      })
      data.push(new Uint8Array(numbers.buffer, numbers.byteOffset, numbers.byteLength))
    }
  }
  const about = layers.map((layer) => layer && { ...layer.rotation, hidden: layer.hidden })
  await writeSafetensors(file, tensors, data, {
    ...{ format, version: `${formatVersion}`, features: `${featureVersion}`, model: identity, recent: `${recent}` },
    layers: JSON.stringify(about.map((entry) => entry ?? null)),
  })
}

function dimsOf(layer: ScorerLayer, field: (typeof fields)[number], numKvHeads: number): number[] {
  const perHead = layer[field].length / numKvHeads
  if (field === 'slope' || layer.hidden === 0) return perHead === 1 ? [numKvHeads] : [numKvHeads, perHead]
  return field === 'weight' ? [numKvHeads, layer.hidden, perHead / layer.hidden] : [numKvHeads, perHead]
}

/**
 * Reads a scorer at once: it is small.
 * @throws KvasirError `not-found` without the file; `invalid-file` with the reason: no scorer, another version, of another
 * model, numbers that are missing, too many or not finite
 */
export function readScorer(file: string, { shape, identity }: ScorerModel): ScoreTokens {
  const bytes = readSmall(file)
  const { tensors, metadata } = parseSafetensors(bytes, file)
  if (metadata.format !== format) throw refuse(file, `expected a scorer, got format ${metadata.format ?? 'unknown'}`)
  const expected = { version: formatVersion, features: featureVersion }
  for (const [name, number] of Object.entries(expected)) {
    if (metadata[name] !== `${number}`)
      throw refuse(file, `expected ${name} ${number}, got ${metadata[name]}; train it anew`)
  }
  if (metadata.model !== identity)
    throw refuse(file, 'expected a scorer of this model, got one of other weights; train it anew')
  const recent = Number(metadata.recent)
  if (!(Number.isInteger(recent) && recent >= 0))
    throw refuse(file, `expected a count of recent tokens, got ${metadata.recent}`)
  try {
    const score = createScorer(readLayers(bytes, tensors, metadata, file), shape)
    const digest = createHash('sha256').update(bytes).digest('hex').slice(0, 32)
    return Object.assign((...args: Parameters<typeof score>) => score(...args), { recent, digest })
  } catch (error) {
    if (isKvasirError(error) && error.code === 'invalid-argument') throw refuse(file, reasonOf(error), error)
    throw error
  }
}

function readSmall(file: string): Uint8Array {
  try {
    if (statSync(file).size <= maxBytes) return new Uint8Array(readFileSync(file)) // a Buffer slices without a copy
  } catch (cause) {
    const message = `expected a scorer at ${file}: kvasir train-scorer makes one`
    throw new KvasirError('not-found', 'runtime', message, { cause })
  }
  throw refuse(file, `expected at most ${maxBytes} bytes`)
}

function readLayers(
  bytes: Uint8Array,
  tensors: ReadonlyMap<string, TensorEntry>,
  metadata: Readonly<Record<string, string>>,
  file: string,
): ScorerLayers {
  const numbers = (name: string): Float32Array => {
    const entry = tensors.get(name)
    if (!entry) throw refuse(file, `expected a tensor ${name}`)
    if (entry.dtype !== 'F32') throw refuse(file, `expected F32 for ${name}, got ${entry.dtype}`)
    // A copy: where numbers begin in the file need not be a multiple of four.
    return new Float32Array(bytes.slice(entry.offset, entry.offset + entry.byteLength).buffer)
  }
  return aboutLayers(metadata.layers, file).map((about, index) => {
    if (!about) return undefined
    const { hidden, pairs, isInterleaved } = about
    const [weight, bias, output, slope] = fields.map((field) => numbers(`layers.${index}.${field}`))
    return { rotation: { pairs, isInterleaved }, hidden, weight, bias, output, slope } as ScorerLayer
  })
}

function aboutLayers(text: string | undefined, file: string): ((KeyRotation & { hidden: number }) | null)[] {
  const isCount = (value: unknown): boolean =>
    Number.isInteger(value) && (value as number) >= 0 && (value as number) < 2 ** 20
  try {
    const layers: unknown = JSON.parse(text ?? '')
    const isRight = (layer: Partial<KeyRotation & { hidden: number }> | null): boolean => {
      return (
        layer === null || (isCount(layer.pairs) && isCount(layer.hidden) && typeof layer.isInterleaved === 'boolean')
      )
    }
    if (Array.isArray(layers) && layers.every(isRight)) return layers
  } catch {
    // refused below, as anything else that is no list of layers
  }
  throw refuse(file, 'expected a list of layers in its metadata')
}

function refuse(file: string, message: string, cause?: unknown): KvasirError {
  return new KvasirError('invalid-file', 'runtime', `${file}: ${message}`, { cause })
}
