/**
 * Caches in a file (docs/caches.md): sections of src/cache/snapshot/section-file.ts. `about` says in JSON of which model
 * and with which options they are; then come, for each cache, the ids of its tokens and the state of each layer.
 */
import type { CacheOptions, CacheShape, KvCache, LayerShape } from '../cache/contract.ts'
import { decodeState, encodeState } from '../cache/snapshot/codec.ts'
import { SectionFile, writeSections } from '../cache/snapshot/section-file.ts'
import { describe } from '../tensor/check.ts'
import { invalidArgument, KvasirError, withPath } from '../tensor/error.ts'
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

type CreateCache = (options: CacheOptions, index: number) => KvCache

/** An open file whose `about` is understood. */
export interface CacheFile {
  readonly about: AboutCaches
  readonly size: number
  /**
   * Makes the caches anew. `create` gives an empty one; when anything is wrong all of them are disposed of.
   * @param asked what the reader itself wants, however large
   */
  read(create: CreateCache, asked?: Partial<CacheOptions>): Promise<KvCache[]>
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
      return await use({ about, size: file.size, read: (...args) => readCaches(file, about, ...args) })
    } finally {
      await file.close()
    }
  } catch (error) {
    throw withPath(error, path)
  }
}

async function readCaches(
  file: SectionFile,
  { caches: saved, shape }: AboutCaches,
  create: CreateCache,
  asked: Partial<CacheOptions> = {},
): Promise<KvCache[]> {
  const caches: KvCache[] = []
  for (const [n, cache] of saved.entries()) {
    checkSizes(cache, { asked, numLayers: shape.numLayers, idBytes: file.lengthOf(sectionName(n, 0)), size: file.size })
  }
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

/** Windows and budgets up to these are made room for whatever a file holds. */
const usualWindow = 65536
const usualBudget = 2 ** 30

/**
 * What would be made room for before a single row is read must be in proportion to the file: a few bytes that somebody
 * made up must not take all memory. A reader who asks for as much by itself gets it.
 * @throws KvasirError `invalid-file`
 */
function checkSizes(
  { options, seenTokens, parts }: AboutCaches['caches'][number],
  file: { asked: Partial<CacheOptions>; numLayers: number; idBytes: number; size: number },
): void {
  if (8 + 4 * seenTokens !== file.idBytes) {
    throw invalidFile(`expected ids of ${describe(seenTokens)} tokens, got a section of ${file.idBytes} bytes`)
  }
  if (!(parts > file.numLayers)) throw invalidFile(`expected a part for each layer, got ${describe(parts)}`)
  const limits = {
    window: Math.max(usualWindow, seenTokens),
    kvBudget: Math.max(usualBudget, 64 * file.size),
    pageSize: usualWindow,
    evictionLog: 1 << 20,
  }
  for (const name of ['window', 'kvBudget', 'pageSize', 'evictionLog'] as const) {
    const value = options[name]
    if (value === undefined || (value as number) <= limits[name] || value === file.asked[name]) continue
    const message = `expected ${name} of at most ${limits[name]} in a file of ${seenTokens} tokens`
    throw invalidFile(`${message}, got ${describe(value)}; where that is right, ask for it`)
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
  const sizes = [numHeads, numKvHeads, headDim, valueDim]
  const isSizes = sizes.every((size) => Number.isInteger(size) && size! > 0 && size! <= 65536)
  return isSizes && numHeads! * Math.max(headDim!, valueDim!) <= 2 ** 20 && numKvHeads! <= numHeads!
}

function invalidFile(message: string): KvasirError {
  return new KvasirError('invalid-file', 'cache', message)
}
