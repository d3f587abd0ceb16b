/** What happens when a layer has more rows than it may: they are ranked, and those that lose leave. */
import type { AttendArgs } from '../../kernels/index.ts'
import type { KeptRows } from '../retention.ts'
import type { RankedConfig, RankedParts } from './parts.ts'
import { RowProducts } from './products.ts'
import { RowsView } from './rows-view.ts'
import { type Ranked, selectRows } from './selection.ts'

export class RowRanking {
  readonly #config: RankedConfig
  readonly #parts: RankedParts
  readonly #dense: RowProducts

  constructor(config: RankedConfig, parts: RankedParts) {
    this.#config = config
    this.#parts = parts
    this.#dense = new RowProducts(config.kernels)
  }

  /**
   * Ranks and evicts where there are too many rows. Returns whether there were.
   * @param seen tokens so far
   * @param last the arguments of the attention that has just been
   */
  compress(seen: number, last: (() => AttendArgs) | undefined): boolean {
    const { rows, queries, limits } = this.#parts
    if (!limits.isDue(rows.lengths)) return false
    const mass = queries.recentMass(seen, last)
    const view = this.#view(seen, mass?.values, mass?.count ?? 0)
    const heads = limits.headsToRank(rows.lengths)
    const ranked = this.#rank(view, heads)
    const massesOf = () => heads.map((k) => view.inOrder(k, mass?.values as Float32Array))
    const kept = selectRows(ranked, limits.adapt(ranked, massesOf))
    for (const [n, k] of heads.entries()) {
      if (limits.mayEvict(k, rows.lengths)) this.#evict(k, kept[n] as Uint8Array, seen)
    }
    queries.interrupt()
    return true
  }

  #rank(view: RowsView, heads: readonly number[]): Ranked[] {
    const { retention } = this.#config
    const ranked = heads.map((k) => ({ positions: view.positions(k), scores: view.earlier(k) }))
    if (retention.kind === 'static') return ranked
    const scores = new Map(heads.map((k, n) => [k, (ranked[n] as Ranked).scores]))
    retention.rescore(view, scores)
    for (const [k, own] of scores) this.#parts.rows.setScores(k, own)
    return ranked
  }

  #view(seenTokens: number, recentMass: Float32Array | undefined, massQueries: number): RowsView {
    const { shape, sinks, recent } = this.#config
    const { rows, store, axis, queries } = this.#parts
    const { numHeads, numKvHeads, headDim, valueDim } = shape
    const sizes = { numKvHeads, group: numHeads / numKvHeads, headDim, valueDim, sinks, recent, massQueries }
    const sample = queries.sample((length) => axis?.meanRotation(length))
    const facts: Omit<KeptRows, 'positions' | 'keys' | 'values' | 'mass' | 'earlier'> = {
      ...{ ...sizes, seenTokens, sample, dense: this.#dense },
    }
    return new RowsView(facts, rows, store, rows.mass?.values ?? recentMass)
  }

  #evict(head: number, flags: Uint8Array, seen: number): void {
    const { store, rows, axis, log, archive } = this.#parts
    const order = rows.order(head)
    for (let n = 0; n < order.length; n++) {
      if (flags[n]) continue
      const row = order[n] as number
      log.add(head, rows.position(head, row), rows.score(head, row), seen)
      archive?.leave(head, rows.position(head, row))
    }
    rows.keep(head, flags, (from, to) => {
      store.move(head, from, to)
      axis?.move(head, from, to)
    })
    axis?.renumber(head, rows.order(head))
  }
}
