/** What a file of caches holds, without its model. */
import type { CacheInfo, LayerExplanation } from '../cache/contract.ts'
import { openKernels } from '../kernels/index.ts'
import { createKvCache } from '../policies/index.ts'
import { KvasirError } from '../tensor/error.ts'
import { withCacheFile } from './cache-file.ts'
import type { SavedOptions } from './saved-options.ts'

/** One cache of a file. */
export interface SavedCacheReport {
  /** What it was made with. */
  readonly options: SavedOptions
  readonly info: CacheInfo
  /** `[L]` */
  readonly layers: readonly LayerExplanation[]
  /** The ids of all tokens seen. */
  readonly tokens: Int32Array
}

export interface CacheFileReport {
  readonly bytes: number
  readonly model: { readonly fingerprint: string; readonly architecture: string }
  readonly caches: readonly SavedCacheReport[]
}

/**
 * Reads a file of `saveCache` and says what is in it. Takes the memory of the caches while it does.
 * @throws KvasirError `not-found`, `invalid-file` for a file that is damaged, not whole, or asks for more room than it can
 * fill; `unsupported` for caches of models that remember more than keys and values; `out-of-memory`
 */
export async function inspectCacheFile(path: string): Promise<CacheFileReport> {
  const kernels = openKernels({ threads: 1 })
  return await withCacheFile(path, async ({ about, size, read }) => {
    const { model, shape, caches: saved } = about
    // Of each cache the tokens and its layers; what models remember besides comes after them.
    if (saved.some(({ parts }) => parts > shape.numLayers + 1)) {
      throw new KvasirError(
        'unsupported',
        'runtime',
        'expected caches of keys and values, got states of a model besides',
      )
    }
    const caches = await read((options) => createKvCache(kernels, shape, options))
    const reports = caches.map((cache, n) => ({
      options: saved[n]!.options,
      info: cache.getCacheInfo(),
      layers: cache.explain?.() ?? [],
      tokens: Int32Array.from(cache.tokens ?? []),
    }))
    for (const cache of caches) cache.dispose()
    return { bytes: size, model, caches: reports }
  })
}
