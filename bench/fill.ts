/** Puts tokens into the cache of one layer without a model and without attention, as fast as they can be stored. */
import { BoundedCache } from '../src/cache/bounded/bounded-cache.ts'
import type { LayerInput } from '../src/cache/contract.ts'
import { FullCache } from '../src/cache/full-cache.ts'
import { RankedCache } from '../src/cache/ranked/ranked-cache.ts'
import { KvasirError } from '../src/tensor/error.ts'

export type Tokens = Omit<LayerInput, 'query'>

/** @throws KvasirError `internal` for a cache that can't take tokens without attending */
export function appendTo(layer: unknown, tokens: Tokens): void {
  if (!(layer instanceof FullCache || layer instanceof BoundedCache || layer instanceof RankedCache)) {
    throw new KvasirError('internal', 'bench', 'expected a cache that takes tokens without attending')
  }
  layer.append(tokens)
}
