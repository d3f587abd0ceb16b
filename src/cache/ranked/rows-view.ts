/** The rows of a layer by position, as a policy sees them. */

import type { KeptRows, QuerySample } from '../retention.ts'
import type { RowStore } from '../storage/row-store.ts'
import type { RowProducts } from './products.ts'
import type { RankedRows } from './rows.ts'

type Facts = Omit<KeptRows, 'positions' | 'keys' | 'values' | 'mass' | 'earlier'>

export class RowsView implements KeptRows {
  readonly numKvHeads: number
  readonly group: number
  readonly headDim: number
  readonly valueDim: number
  readonly seenTokens: number
  readonly recent: number
  readonly sinks: number
  readonly massQueries: number
  readonly sample: QuerySample | undefined
  readonly dense: RowProducts
  readonly #rows: RankedRows
  readonly #store: RowStore
  /** `[K, C]` */
  readonly #mass: Float32Array | undefined

  constructor(facts: Facts, rows: RankedRows, store: RowStore, mass: Float32Array | undefined) {
    this.numKvHeads = facts.numKvHeads
    this.group = facts.group
    this.headDim = facts.headDim
    this.valueDim = facts.valueDim
    this.seenTokens = facts.seenTokens
    this.recent = facts.recent
    this.sinks = facts.sinks
    this.massQueries = facts.massQueries
    this.sample = facts.sample
    this.dense = facts.dense
    this.#rows = rows
    this.#store = store
    this.#mass = mass
  }

  positions(head: number): Float64Array {
    return this.#rows.positionsOf(head)
  }

  earlier(head: number): Float64Array {
    return this.#rows.scoresOf(head)
  }

  mass(head: number): Float32Array {
    return this.inOrder(head, this.#mass as Float32Array)
  }

  /** Numbers `[K, C]` of a head's rows, by position. */
  inOrder(head: number, values: Float32Array): Float32Array {
    const base = head * this.#store.capacity
    const order = this.#rows.order(head)
    const ordered = new Float32Array(order.length)
    for (let n = 0; n < ordered.length; n++) ordered[n] = values[base + (order[n] as number)] as number
    return ordered
  }

  keys(head: number, from?: number, end?: number): Float32Array {
    return this.#store.read('keys', head, this.#rows.order(head).subarray(from, end))
  }

  values(head: number, from?: number, end?: number): Float32Array {
    return this.#store.read('values', head, this.#rows.order(head).subarray(from, end))
  }
}
