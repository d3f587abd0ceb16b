/**
 * Caches in a file (docs/caches.md): sections of src/cache/snapshot/section-file.ts. `about` says in JSON of which model
 * and with which options they are; then come, for each cache, the ids of its tokens and the state of each layer.
 */
import type { CacheOptions, CacheShape, KvCache, LayerShape } from '../cache/contract.ts'
import { decodeState, encodeState } from '../cache/snapshot/codec.ts'
import { SectionFile, writeSections } from '../cache/snapshot/section-file.ts'
import { describe } from '../tensor/check.ts'
import { invalidArgument, isKvasirError, KvasirError } from '../tensor/error.ts'
import { explicitOptions, type SavedOptions, savedOptions } from './saved-options.ts'

/** What `about` holds. */
export interface AboutCaches {
  readonly model: { readonly fingerprint: string; readonly architecture: string }
  readonly shape: SavedShape
  readonly caches: readonly { readonly options: SavedOptions; readonly seenTokens: number; readonly parts: number }[]
  /** Whatever the writer wants back. */
  readonly note?: unknown
}

type SavedLayer = Pick<LayerShape, 'numHeads' | 'numKvHeads' | 'headDim' | 'valueDim' | 'window' | 'isShared'>
type SavedShape = Pick<CacheShape, 'numLayers' | 'hasImportance'> & { readonly layers: readonly SavedLayer[] }

export interface WriteOptions {
  readonly fingerprint: string
  readonly architecture: string
  readonly shape: CacheShape
  readonly note?: unknown
}

/**
 * @returns bytes of the file
 * @throws KvasirError `unsupported` for caches that have no state to write, `invalid-argument` for tokens that nobody
 * told and for a place that can't be written to
 */
export function writeCaches(path: string, caches: readonly KvCache[], options: WriteOptions): number {
  const { fingerprint, architecture, shape, note } = options
  const states = caches.map((cache) => partsOf(cache))
  const about: AboutCaches = {
    model: { fingerprint, architecture },
    shape: savedShape(shape),
    caches: caches.map((cache, n) => ({
      options: savedOptions(cache.options!),
      seenTokens: cache.seenTokens,
      parts: states[n]!.length,
    })),
    ...(note !== undefined && { note }),
  }
  const sections = states.flatMap((parts, n) =>
    parts.map((part, i) => ({ name: sectionName(n, i), data: () => encodeState(part) })),
  )
  return writeSections(path, [{ name: 'about', data: () => Buffer.from(JSON.stringify(about)) }, ...sections])
}

function partsOf(cache: KvCache) {
  if (!cache.stateParts || !cache.options) {
    throw new KvasirError('unsupported', 'runtime', 'expected a cache with a state that can be written')
  }
  if (!cache.tokens) {
    const message = "expected a cache that was filled by its model's calls, got one with tokens whose ids nobody told"
    throw invalidArgument('runtime', message)
  }
  return [...cache.stateParts()]
}

function sectionName(cache: number, part: number): string {
  return `cache ${cache} part ${part}`
}

function savedShape({ numLayers, hasImportance, layers }: CacheShape): SavedShape {
  const saved = layers.map(({ numHeads, numKvHeads, headDim, valueDim, window, isShared }) => {
    return { numHeads, numKvHeads, headDim, valueDim, window, isShared }
  })
  return { numLayers, hasImportance, layers: saved }
}

/** An open file whose `about` is understood. */
export interface CacheFile {
  readonly about: AboutCaches
  readonly size: number
  /** Makes the caches anew. `create` gives an empty one; when anything is wrong all of them are disposed of. */
  read(create: (options: CacheOptions, index: number) => KvCache): Promise<KvCache[]>
}

/**
 * Opens a file of caches for as long as `use` takes. Whatever is refused names the file.
 * @throws KvasirError `not-found`; `invalid-file` for a file that is no such, damaged, or not whole
 */
export async function withCacheFile<T>(path: string, use: (file: CacheFile) => Promise<T>): Promise<T> {
  try {
    const file = await SectionFile.open(path)
    try {
      const about = checkAbout(parse(await file.read('about')))
      return await use({ about, size: file.size, read: (create) => readCaches(file, about, create) })
    } finally {
      await file.close()
    }
  } catch (error) {
    if (!isKvasirError(error) || error.message.includes(path)) throw error
    throw new KvasirError(error.code, error.area, `${path}: ${error.message.replace(/^\[[^\]]*\] /, '')}`, {
      cause: error,
    })
  }
}

async function readCaches(
  file: SectionFile,
  { caches: saved }: AboutCaches,
  create: (options: CacheOptions, index: number) => KvCache,
): Promise<KvCache[]> {
  const caches: KvCache[] = []
  try {
    for (const [n, { options, seenTokens, parts: numParts }] of saved.entries()) {
      const cache = create(explicitOptions(options), n)
      caches.push(cache)
      const parts = [...(cache.stateParts?.() ?? [])]
      if (parts.length !== numParts) throw invalidFile(`expected ${parts.length} parts of a cache, got ${numParts}`)
      for (const [i, part] of parts.entries()) decodeState(part, await file.read(sectionName(n, i)))
      if (cache.seenTokens !== seenTokens || cache.tokens?.length !== seenTokens) {
        throw invalidFile(`expected a cache of ${seenTokens} tokens, got one of ${cache.seenTokens}`)
      }
    }
    return caches
  } catch (error) {
    for (const cache of caches) cache.dispose()
    throw error
  }
}

function parse(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'))
  } catch {
    throw invalidFile('expected JSON in section "about"')
  }
}

/** What types promise is checked as far as it is used before the states, which check the rest. */
function checkAbout(value: unknown): AboutCaches {
  const { model, shape, caches } = (value ?? {}) as Partial<AboutCaches>
  const isModel = typeof model?.fingerprint === 'string' && typeof model.architecture === 'string'
  const isShape = Array.isArray(shape?.layers) && shape.layers.length === shape.numLayers && shape.layers.every(isLayer)
  const isCaches = Array.isArray(caches) && caches.every((cache) => typeof cache?.options === 'object' && cache.options)
  if (isModel && isShape && isCaches) return value as AboutCaches
  throw invalidFile(`expected model, shape and caches in section "about", got ${describe(value)}`)
}

/** Sizes beyond these are of no model, and would be taken for room to make. */
function isLayer(layer: Partial<LayerShape> | null): boolean {
  const { numHeads, numKvHeads, headDim, valueDim } = layer ?? {}
  return [numHeads, numKvHeads, headDim, valueDim].every(
    (size) => Number.isInteger(size) && size! > 0 && size! <= 65536,
  )
}

function invalidFile(message: string): KvasirError {
  return new KvasirError('invalid-file', 'cache', message)
}
