/**
 * What the query of the newest token sees of rows of which some have copies: of those the copies alone. Kept from step to
 * step, since a token changes but two rows of each head. Chunks, whose queries see different copies, are not its business.
 */
import { NEVER } from '../../kernels/index.ts'
import type { RowFacts } from './row-store.ts'

/** The row of an entry that is a copy of nothing. */
export const nowhere = -1

/** Born before or after any query. */
const [seen, hidden] = [-NEVER, NEVER]

export class RecentSight {
  readonly #numKvHeads: number
  /** N: copies of each head. */
  readonly #size: number
  /** `[K, N]`: the row that each is a copy of. */
  readonly #rows: Int32Array
  /** `[K, C]`: births of the rows themselves; empty: to be made anew. */
  #births = new Int32Array(0)
  /** `[K, N]`: of the copies. */
  readonly #own: { births: Int32Array; bias: Float32Array; positions: Int32Array }
  /** Entries that bias and positions are not up to date for. */
  #fresh: number[] = []
  /** What the bias was taken from: another array may say other things of all rows. */
  #bias: Float32Array | undefined

  constructor(numKvHeads: number, rows: Int32Array) {
    this.#numKvHeads = numKvHeads
    this.#size = rows.length / numKvHeads
    this.#rows = rows
    const { length } = rows
    this.#own = { births: new Int32Array(length), bias: new Float32Array(length), positions: new Int32Array(length) }
  }

  /** More has changed than single copies. */
  forget(): void {
    if (this.#births.length > 0) this.#births = new Int32Array(0)
  }

  /** A copy is now one of another row. */
  change(head: number, entry: number, from: number, to: number): void {
    if (this.#births.length === 0) return
    const base = head * (this.#births.length / this.#numKvHeads)
    if (from !== nowhere) this.#births[base + from] = seen
    if (to !== nowhere) this.#births[base + to] = hidden
    this.#own.births[head * this.#size + entry] = to === nowhere ? hidden : seen
    if (to !== nowhere && this.#fresh.at(-1) !== entry) this.#fresh.push(entry)
  }

  /** Of the rows, and of their copies. `facts` say nothing of births and deaths. */
  of(facts: RowFacts, capacity: number): { readonly rows: RowFacts; readonly copies: RowFacts } {
    if (this.#births.length !== this.#numKvHeads * capacity) this.#makeAnew(capacity)
    const { bias, positions, firstPosition, rows, origin } = facts
    // Distances change at every step.
    if (positions || bias !== this.#bias) this.#fresh = this.#all
    this.#bias = bias
    for (const entry of this.#fresh) this.#update(entry, facts, capacity)
    this.#fresh = []
    const own = this.#own
    const hasPositions = positions !== undefined || firstPosition !== undefined
    return {
      rows: { bias, births: this.#births, positions, firstPosition, rows, origin },
      copies: {
        bias: bias && own.bias,
        births: own.births,
        positions: hasPositions ? own.positions : undefined,
        origin,
      },
    }
  }

  #makeAnew(capacity: number): void {
    this.#births = new Int32Array(this.#numKvHeads * capacity).fill(seen)
    for (let at = 0; at < this.#rows.length; at++) {
      const row = this.#rows[at] as number
      this.#own.births[at] = row === nowhere ? hidden : seen
      if (row !== nowhere) this.#births[Math.floor(at / this.#size) * capacity + row] = hidden
    }
    this.#fresh = this.#all
  }

  get #all(): number[] {
    return Array.from({ length: this.#size }, (_, entry) => entry)
  }

  #update(entry: number, { bias, positions, firstPosition = 0 }: RowFacts, capacity: number): void {
    for (let k = 0; k < this.#numKvHeads; k++) {
      const at = k * this.#size + entry
      const row = this.#rows[at] as number
      if (row === nowhere) continue
      const from = k * capacity + row
      if (bias) this.#own.bias[at] = bias[from] as number
      this.#own.positions[at] = positions ? (positions[from] as number) : firstPosition + row
    }
  }
}
