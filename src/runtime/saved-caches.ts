/** What a model does with files of its caches: writes them, reads them back, and refuses what is not its own. */
import type { CacheOptions, ImportanceSource, KvCache } from '../cache/contract.ts'
import { checkKeys, describe } from '../tensor/check.ts'
import { invalidArgument, KvasirError } from '../tensor/error.ts'
import { withCacheFile, writeCaches } from './cache-file.ts'
import { cacheKeys } from './cache-options.ts'
import type { CacheReport, RestoredCaches, SavedFile } from './contract.ts'
import type { ModelParts } from './model.ts'
import { agreedOptions } from './saved-options.ts'

export class SavedCaches {
  readonly #parts: ModelParts
  readonly #create: (options: CacheOptions) => KvCache

  /** @param create an empty cache of the model, of just these options */
  constructor(parts: ModelParts, create: (options: CacheOptions) => KvCache) {
    this.#parts = parts
    this.#create = create
  }

  async save(caches: readonly KvCache[], path: string, note: unknown): Promise<SavedFile> {
    const fingerprint = await this.#parts.fingerprint()
    const { shape, description } = this.#parts
    return { bytes: writeCaches(path, caches, { fingerprint, architecture: description.architecture, shape, note }) }
  }

  async restore(path: string, options: Partial<CacheOptions>): Promise<RestoredCaches> {
    checkPath(path)
    checkKeys('runtime', 'a cache', options, cacheKeys)
    const fingerprint = await this.#parts.fingerprint()
    return await withCacheFile(path, async ({ about, read }) => {
      const { model, note, caches: saved } = about
      if (model.fingerprint !== fingerprint) {
        const got = `one of another model (${model.architecture}, ${model.fingerprint})`
        throw new KvasirError(
          'invalid-argument',
          'runtime',
          `expected caches of this model (${fingerprint}), got ${got}`,
        )
      }
      const asked = { ...this.#parts.chosen, ...options }
      const resolve = (importance: ImportanceSource) => this.#parts.scorers.resolveImportance(importance)
      const agreed = saved.map((cache) => agreedOptions(cache.options, asked, resolve))
      const caches = await read((_, index) => this.#create(agreed[index]!), asked)
      const { vocabSize } = this.#parts.spec
      const tokens = caches.map((cache) => Int32Array.from(cache.tokens!))
      if (tokens.every((ids) => ids.every((id) => id < vocabSize))) return { caches, tokens, note }
      for (const cache of caches) cache.dispose()
      throw new KvasirError('invalid-file', 'runtime', `expected token ids below ${vocabSize}, got others`)
    })
  }
}

/** @throws KvasirError `unsupported` for a cache that can't tell */
export function reportOf(cache: KvCache): CacheReport {
  if (!cache.explain) throw new KvasirError('unsupported', 'runtime', 'expected a cache that can explain itself')
  const { tokens } = cache
  return {
    info: cache.getCacheInfo(),
    layers: cache.explain(),
    ...(tokens && { tokens: Int32Array.from(tokens) }),
  }
}

/** @throws KvasirError `invalid-argument` for a file of several caches */
export function onlyOne({ caches }: RestoredCaches, path: string): KvCache {
  const [cache, ...others] = caches
  if (cache && others.length === 0) return cache
  for (const one of caches) one.dispose()
  throw invalidArgument('runtime', `expected one cache in ${path}, got ${caches.length}; use restoreCaches`)
}

export function checkPath(path: unknown): asserts path is string {
  if (typeof path === 'string' && path !== '') return
  throw invalidArgument('runtime', `expected the path of a file, got ${describe(path)}`)
}
