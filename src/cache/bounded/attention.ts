/** What queries see of a bounded layer: the rows that it keeps, and of a chunk the chunk itself. */
import type { KeyValueSegment, Rotation } from '../../kernels/index.ts'
import { attendArgs, attentionOf, type LayerAttention } from '../attend-args.ts'
import type { LayerInput } from '../contract.ts'
import { createStore, headMajor, type LayerConfig, type Queries } from '../layout.ts'
import { appendedRows, type RowFacts, type RowList, type RowStore } from '../storage/row-store.ts'
import type { KeptParts } from './parts.ts'
import type { RetainPlan } from './state.ts'

/** The rows that were kept before a chunk. */
interface OldRows extends Pick<RowFacts, 'positions'> {
  /** `[K]` */
  readonly lengths: Int32Array
}

/** The tokens of a chunk in a store of their own. */
export interface ChunkRows {
  readonly store: RowStore
  readonly list: RowList
  readonly old: OldRows
}

export class KeptAttention {
  readonly #config: LayerConfig
  readonly #parts: KeptParts
  readonly #layer: LayerAttention

  constructor(config: LayerConfig, parts: KeptParts) {
    this.#config = config
    this.#parts = parts
    this.#layer = attentionOf(config)
  }

  /** The query of the last of `seen` tokens, over exactly the rows that are kept. */
  attendKept({ query }: Queries, output: Float32Array, seen: number): void {
    const { axis, archive, state } = this.#parts
    // First, since it may move the memory that segments are views of.
    const recalled = archive?.recall(query)
    const segments = this.#segments(state.view.lengths, seen - 1, this.#distances(seen - 1))
    if (recalled) segments.push(...recalled)
    this.#attend(query, 1, output, axis?.forLast(1), segments)
  }

  /**
   * Stores a chunk by itself and notes what it finds, before any of that changes.
   * @param seen tokens before it
   */
  openChunk(input: LayerInput, seen: number, turn: Rotation | undefined): ChunkRows {
    const { numTokens } = input
    const { numKvHeads } = this.#config.shape
    const old = { lengths: this.#parts.state.view.lengths.slice(), positions: this.#distances(seen) }
    const config = { ...this.#config, pool: undefined, residualPool: undefined, isRanked: false }
    const store = createStore(config, numTokens)
    const list = appendedRows(new Int32Array(numKvHeads), numTokens)
    try {
      store.write(input, list, turn)
    } catch (error) {
      store.free()
      throw error
    }
    return { store, list, old }
  }

  /** Queries of a chunk: old rows are seen until their death, new tokens from birth to death. */
  attendChunk(
    { query, importance, numTokens }: LayerInput,
    output: Float32Array,
    { store, list, old }: ChunkRows,
    { plan, first, turn }: { readonly plan: RetainPlan; readonly first: number; readonly turn: Rotation | undefined },
  ): void {
    const bias = this.#parts.bias && headMajor(importance, this.#config.shape.numKvHeads, numTokens)
    const lives = { births: list.tokens, deaths: plan.tokenDeaths }
    const fresh = store.segments(list.counts, { bias, firstPosition: 0, ...lives, origin: 0 })
    const segments = this.#segments(old.lengths, first, old.positions, plan.rowDeaths)
    this.#attend(query, numTokens, output, turn, [...segments, ...fresh])
  }

  /** @param origin position of the first query */
  #segments(
    lengths: Int32Array,
    origin: number,
    positions: Int32Array | undefined,
    deaths?: Int32Array,
  ): KeyValueSegment[] {
    const { store, bias } = this.#parts
    return store.segments(lengths, { bias: bias?.f32, positions, deaths, origin })
  }

  /** Positions of kept rows, relative to the first query: only ALiBi asks for them. */
  #distances(first: number): Int32Array | undefined {
    if (!this.#config.shape.alibiSlopes) return undefined
    return Int32Array.from(this.#parts.state.view.positions, (position) => position - first)
  }

  #attend(
    query: Float32Array,
    numTokens: number,
    output: Float32Array,
    rotation: Rotation | undefined,
    segments: KeyValueSegment[],
  ): void {
    const call = { query, output, numTokens, firstPosition: 0, rotation, segments }
    this.#config.kernels.attend(attendArgs(this.#layer, call))
  }
}
