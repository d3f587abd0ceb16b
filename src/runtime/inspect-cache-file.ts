/** What a file of caches holds, without its model. */
import type { CacheInfo, LayerExplanation } from '../cache/contract.ts'
import { openKernels } from '../kernels/index.ts'
import { createKvCache } from '../policies/index.ts'
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
 * @throws KvasirError `not-found`, `invalid-file` for a file that is damaged or not whole; `unsupported` for caches of
 * models that remember more than keys and values
 */
export async function inspectCacheFile(path: string): Promise<CacheFileReport> {
  const kernels = openKernels({ threads: 1 })
  return await withCacheFile(path, async ({ about, size, read }) => {
    const { model, shape, caches: saved } = about
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
