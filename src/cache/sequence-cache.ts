/** All layers of one sequence, as one cache. */
import { checkInteger } from '../tensor/check.ts'
import { invalidArgument } from '../tensor/error.ts'
import type { CacheInfo, CacheOptions, KvCache, LayerCache, LayerExplanation, SharedRows } from './contract.ts'
import { Room } from './room.ts'
import { invalidState, type Stateful, type StateVisitor } from './snapshot/state.ts'
import { TokenHistory } from './token-history.ts'

export class SequenceCache implements KvCache {
  readonly truncate: ((length: number) => void) | undefined
  readonly options: CacheOptions
  readonly visitTokens: KvCache['visitTokens']
  readonly shareTokens: KvCache['shareTokens']
  readonly dependsOnChunks: boolean
  readonly #layers: readonly LayerCache[]
  readonly #tokens: TokenHistory

  constructor(layers: readonly LayerCache[], options: CacheOptions, tokens = new TokenHistory()) {
    this.#layers = layers
    this.options = options
    this.#tokens = tokens
    if (layers.every((layer) => layer.truncate)) this.truncate = (length) => this.#truncate(length)
    this.dependsOnChunks = layers.some((layer) => layer.dependsOnChunks)
    if (layers.every((layer) => layer.visitTokens)) {
      this.visitTokens = (...range) => {
        for (const layer of layers) layer.visitTokens?.(...range)
      }
    }
    if (layers.every((layer) => layer.shareTokens)) this.shareTokens = (...range) => this.#shareTokens(...range)
  }

  get numLayers(): number {
    return this.#layers.length
  }

  get seenTokens(): number {
    return this.layer(this.numLayers - 1).info().seenTokens
  }

  get tokens(): Int32Array | undefined {
    return this.#tokens.length === this.seenTokens ? this.#tokens.ids : undefined
  }

  /** Tokens that come after others which nobody told are of no use. */
  noteTokens(tokens: ArrayLike<number>): void {
    if (this.#tokens.length + tokens.length === this.seenTokens) this.#tokens.add(tokens)
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

  visitState(visitor: StateVisitor): void {
    visitor.fixed('layers', this.numLayers)
    for (const part of this.stateParts()) part.visitState(visitor)
  }

  /** The tokens first, then one a layer. */
  *stateParts(): Iterable<Stateful> {
    yield { visitState: (visitor) => this.#tokens.visitState(visitor) }
    for (const layer of this.#layers) yield { visitState: (visitor) => this.#visitLayer(layer, visitor) }
  }

  /** All layers have seen as much as the first. */
  #visitLayer(layer: LayerCache, visitor: StateVisitor): void {
    layer.visitState(visitor)
    const [first, own] = [this.layer(0).info().seenTokens, layer.info().seenTokens]
    if (first !== own) throw invalidState(`expected layers that have seen ${first} tokens, got one that has ${own}`)
  }

  #shareTokens(first: number, count: number): SharedTokens | undefined {
    const layers: SharedRows[] = []
    for (const layer of this.#layers) {
      const rows = layer.shareTokens?.(first, count)
      if (rows) layers.push(rows)
      else break
    }
    const shared = new SharedTokens(layers, this.#tokens.ids.slice(first, first + count))
    if (layers.length === this.numLayers) return shared
    shared.free()
    return undefined
  }

  /** All layers or, when one can't, none. */
  adoptTokens(rows: SharedRows): boolean {
    if (!(rows instanceof SharedTokens) || rows.layers.length !== this.numLayers) return false
    const before = this.seenTokens
    const isTaken = this.#layers.every((layer, n) => layer.adoptTokens?.(rows.layers[n] as SharedRows) === true)
    if (isTaken) this.#tokens.add(rows.ids)
    else for (const layer of this.#layers) layer.truncate?.(before)
    return isTaken
  }

  roomFor(numTokens: number, room: Room): void {
    for (const layer of this.#layers) layer.roomFor?.(numTokens, room)
  }

  reserve(length: number): void {
    const room = new Room()
    this.roomFor(Math.max(0, length - this.seenTokens), room)
    room.check()
    for (const layer of this.#layers) layer.reserve?.(length)
  }

  checkIntegrity(): void {
    for (const layer of this.#layers) layer.checkIntegrity?.()
  }

  #truncate(length: number): void {
    checkInteger('cache', 'length', length, 0, this.seenTokens)
    for (const layer of this.#layers) layer.truncate?.(length)
    this.#tokens.truncate(length)
  }

  reset(): void {
    for (const layer of this.#layers) layer.reset()
    this.#tokens.truncate(0)
  }

  fork(): SequenceCache {
    return new SequenceCache(
      this.#layers.map((layer) => layer.fork()),
      this.options,
      this.#tokens.fork(),
    )
  }

  dispose(): void {
    for (const layer of this.#layers) layer.dispose()
  }
}

/** Tokens of all layers by reference. */
class SharedTokens implements SharedRows {
  readonly layers: readonly SharedRows[]
  readonly ids: Int32Array

  constructor(layers: readonly SharedRows[], ids: Int32Array) {
    this.layers = layers
    this.ids = ids
  }

  get bytes(): number {
    return this.layers.reduce((sum, { bytes }) => sum + bytes, 0)
  }

  free(): void {
    for (const rows of this.layers) rows.free()
  }
}
