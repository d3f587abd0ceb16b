/** All layers of one sequence, as one cache. */
import { checkInteger } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import type { CacheInfo, KvCache, LayerCache, LayerExplanation } from './contract.ts'

export class SequenceCache implements KvCache {
  readonly truncate: ((length: number) => void) | undefined
  readonly #layers: readonly LayerCache[]

  constructor(layers: readonly LayerCache[]) {
    this.#layers = layers
    if (layers.every((layer) => layer.truncate)) this.truncate = (length) => this.#truncate(length)
  }

  get numLayers(): number {
    return this.#layers.length
  }

  get seenTokens(): number {
    return this.layer(this.numLayers - 1).info().seenTokens
  }

  layer(index: number): LayerCache {
    const layer = this.#layers[index]
    if (!layer) throw invalidArgument('cache', `expected a layer below ${this.numLayers}, got ${index}`)
    return layer
  }

  getCacheInfo(): CacheInfo {
    const infos = this.#layers.map((layer) => layer.info())
    const sum = (field: 'bytes' | 'fullBytes') => infos.reduce((total, info) => total + info[field], 0)
    const most = (field: 'keptTokens' | 'seenTokens' | 'capacityUtilization') =>
      Math.max(...infos.map((info) => info[field]))
    const keptTokens = most('keptTokens')
    const seenTokens = most('seenTokens')
    return {
      keptTokens,
      seenTokens,
      capacityUtilization: most('capacityUtilization'),
      bytes: sum('bytes'),
      fullBytes: sum('fullBytes'),
      evictedTokens: seenTokens - keptTokens,
    }
  }

  explain(): LayerExplanation[] {
    return this.#layers.map((layer) => layer.explain?.() ?? { heads: [], evicted: [] })
  }

  checkIntegrity(): void {
    for (const layer of this.#layers) layer.checkIntegrity?.()
  }

  #truncate(length: number): void {
    checkInteger('cache', 'length', length, 0, this.seenTokens)
    for (const layer of this.#layers) layer.truncate?.(length)
  }

  reset(): void {
    for (const layer of this.#layers) layer.reset()
  }

  fork(): SequenceCache {
    return new SequenceCache(this.#layers.map((layer) => layer.fork()))
  }

  dispose(): void {
    for (const layer of this.#layers) layer.dispose()
  }
}
