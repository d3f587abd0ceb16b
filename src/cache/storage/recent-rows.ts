/**
 * Copies of the newest tokens in a store of their own: which row of the main store each is a copy of, and what a cache
 * says of that row, entry by entry.
 */
import { NEVER } from '../../kernels/index.ts'
import { nowhere, RecentSight } from './recent-sight.ts'
import type { RowFacts, RowList, TurnedRows } from './row-store.ts'

export class RecentRows {
  /** N: entries of each head. */
  readonly size: number
  /** `[K, N]`; whoever writes to it calls `forget` of `sight`. */
  readonly rows: Int32Array
  /** Of the query of the newest token. */
  readonly sight: RecentSight
  readonly #numKvHeads: number

  constructor(numKvHeads: number, size: number) {
    this.size = size
    this.#numKvHeads = numKvHeads
    this.rows = new Int32Array(numKvHeads * size).fill(nowhere)
    this.sight = new RecentSight(numKvHeads, this.rows)
  }

  #set(head: number, entry: number, row: number): void {
    const at = head * this.size + entry
    this.sight.change(head, entry, this.rows[at] as number, row)
    this.rows[at] = row
  }

  /** Token t, if a head keeps it, is what entry entryOf(t) is a copy of; of others entries become copies of nothing. */
  place(
    { counts, tokens, slots, stride }: RowList,
    firstToken: number,
    numTokens: number,
    entryOf: (t: number) => number,
  ) {
    for (let k = 0; k < this.#numKvHeads; k++) {
      for (let t = firstToken; t < numTokens; t++) this.#set(k, entryOf(t), nowhere)
      for (let n = k * stride; n < k * stride + (counts[k] as number); n++) {
        const token = tokens[n] as number
        if (token >= firstToken) this.#set(k, entryOf(token), slots[n] as number)
      }
    }
  }

  /** Rows now hold something else: those of a list. */
  overwrite({ counts, slots, stride }: RowList): void {
    for (let k = 0; k < counts.length; k++) {
      for (let n = k * stride; n < k * stride + (counts[k] as number); n++) this.#drop(k, slots[n] as number)
    }
  }

  #drop(head: number, row: number): void {
    const entry = this.#entryOf(head, row)
    if (entry !== nowhere) this.#set(head, entry, nowhere)
  }

  #entryOf(head: number, row: number): number {
    const end = (head + 1) * this.size
    for (let at = head * this.size; at < end; at++) if (this.rows[at] === row) return at - head * this.size
    return nowhere
  }

  /** Rows were copied over others of the same head: from[n] over to[n]. */
  move(head: number, from: Int32Array, to: Int32Array): void {
    for (const row of to) this.#drop(head, row)
    for (const [n, row] of from.entries()) {
      const entry = this.#entryOf(head, row)
      if (entry !== nowhere) this.#set(head, entry, to[n] as number)
    }
  }

  /** Rows past lengths[k] are no more. */
  release(lengths: Int32Array): void {
    for (const [k, length] of lengths.entries()) {
      for (let entry = 0; entry < this.size; entry++) {
        if ((this.rows[k * this.size + entry] as number) >= length) this.#set(k, entry, nowhere)
      }
    }
  }

  /**
   * The same of entries: those that are copies of rows that are turned.
   * @param capacity what rows are below
   */
  turned({ heads, rows, turns, ...rest }: TurnedRows, capacity: number): TurnedRows {
    const places = new Int32Array(this.#numKvHeads * capacity).fill(nowhere)
    for (let n = 0; n < rows.length; n++) places[(heads[n] as number) * capacity + (rows[n] as number)] = n
    const found: { head: number; entry: number; turn: number }[] = []
    this.each((head, entry, row) => {
      const n = places[head * capacity + row] as number
      if (n !== nowhere) found.push({ head, entry, turn: turns[n] as number })
    })
    return {
      heads: Int32Array.from(found, ({ head }) => head),
      rows: Int32Array.from(found, ({ entry }) => entry),
      turns: Int32Array.from(found, ({ turn }) => turn),
      ...rest,
    }
  }

  each(visit: (head: number, entry: number, row: number) => void): void {
    for (let k = 0; k < this.#numKvHeads; k++) {
      for (let entry = 0; entry < this.size; entry++) {
        const row = this.rows[k * this.size + entry] as number
        if (row !== nowhere) visit(k, entry, row)
      }
    }
  }

  /** births[k * capacity + row] is at least bornAt(entry) for the rows that entries are copies of. */
  delay(births: Int32Array, capacity: number, bornAt: (entry: number) => number): void {
    for (let entry = 0; entry < this.size; entry++) {
      const born = bornAt(entry)
      for (let k = 0; k < this.#numKvHeads; k++) {
        const row = this.rows[k * this.size + entry] as number
        const at = k * capacity + row
        if (row !== nowhere) births[at] = Math.max(births[at] as number, born)
      }
    }
  }

  /**
   * The facts by entry. Copies are seen until `deathOf` their entry, on the axis of births.
   * @param capacity of the arrays by row
   */
  facts(facts: RowFacts, capacity: number, deathOf: (entry: number) => number, listed?: Uint8Array): RowFacts {
    const { bias, births, deaths, positions, firstPosition, origin } = facts
    const count = this.rows.length
    const own = {
      bias: bias && new Float32Array(count),
      births: new Int32Array(count).fill(NEVER),
      deaths: new Int32Array(count),
      positions: positions || firstPosition !== undefined ? new Int32Array(count) : undefined,
    }
    for (let entry = 0; entry < this.size; entry++) {
      const death = deathOf(entry)
      for (let k = 0; k < this.#numKvHeads; k++) {
        const at = k * this.size + entry
        const row = this.rows[at] as number
        if (row === nowhere) continue
        const from = k * capacity + row
        if (own.bias) own.bias[at] = (bias as Float32Array)[from] as number
        if (!listed || listed[from]) own.births[at] = births ? (births[from] as number) : -NEVER
        own.deaths[at] = deaths ? Math.min(deaths[from] as number, death) : death
        if (own.positions) own.positions[at] = positions ? (positions[from] as number) : (firstPosition as number) + row
      }
    }
    return { ...own, origin }
  }

  copyFrom(other: RecentRows): void {
    this.rows.set(other.rows)
    this.sight.forget()
  }
}

/** `[K, C]`: 1 for rows of a list. */
export function flagsOf(rows: Int32Array, lengths: Int32Array, capacity: number): Uint8Array {
  const flags = new Uint8Array(rows.length)
  for (const [k, length] of lengths.entries()) {
    for (let n = 0; n < length; n++) flags[k * capacity + (rows[k * capacity + n] as number)] = 1
  }
  return flags
}
