/** What queries see of a layer whose rows are ranked: the arguments of attention over them. */
import type { AttendArgs, KeyValueSegment } from '../../kernels/index.ts'
import { attendArgs, attentionOf, type LayerAttention } from '../attend-args.ts'
import type { LayerConfig, Queries } from '../layout.ts'
import type { PositionAxis } from '../position-axis.ts'
import type { RowStore } from '../storage/row-store.ts'
import type { RankedRows } from './rows.ts'

/** When queries look, and where their log-sum-exps go. */
interface Sight {
  /** Tokens so far, those of the queries included. */
  readonly seen: number
  readonly lse?: Float32Array | undefined
  /** Where logits go, if those of all rows can. */
  readonly logits?: Float32Array | undefined
}

export class RankedAttention {
  readonly #config: LayerConfig
  readonly #rows: RankedRows
  readonly #store: RowStore
  readonly #axis: PositionAxis | undefined
  readonly #layer: LayerAttention

  constructor(config: LayerConfig, rows: RankedRows, store: RowStore, axis: PositionAxis | undefined) {
    this.#config = config
    this.#rows = rows
    this.#store = store
    this.#axis = axis
    this.#layer = attentionOf(config)
  }

  /** The last T tokens over all rows: those from firsts[k] on are seen from their own token on. */
  args(queries: Queries, output: Float32Array, sight: Sight & { firsts: Int32Array }): AttendArgs {
    const { firsts } = sight
    const from = queries.numTokens > 1 ? (head: number) => firsts[head] as number : undefined
    return this.#args(queries, output, sight, from)
  }

  /** The last T tokens, which were seen one by one, over the rows that are left: each from its own token on. */
  argsOfLast(queries: Queries, output: Float32Array, sight: Sight): AttendArgs {
    return this.#args(queries, output, sight, () => 0)
  }

  #args(
    { query, numTokens }: Queries,
    output: Float32Array,
    { seen, lse, logits }: Sight,
    from: ((head: number) => number) | undefined,
  ): AttendArgs {
    const first = seen - numTokens
    const segments = this.#segments(first, from && this.#births(from, first))
    return attendArgs(this.#layer, {
      ...{ query, output, lse, numTokens, firstPosition: 0, segments },
      logits: segments.length === 1 ? logits : undefined,
      rotation: this.#axis?.forLast(numTokens),
    })
  }

  /** `[K]`: rows of each head before those that the last T tokens took. */
  rowsBefore(numTokens: number, seen: number): Int32Array {
    return Int32Array.from(this.#rows.lengths, (length, k) => {
      const order = this.#rows.order(k)
      const isNew = (n: number) => this.#rows.position(k, order[n] as number) >= seen - numTokens
      let count = 0
      while (count < length && isNew(length - 1 - count)) count++
      return length - count
    })
  }

  /** @param first position of the first query, for ALiBi's distances */
  #segments(first: number, births: Int32Array | undefined): KeyValueSegment[] {
    const { lengths, bias } = this.#rows
    const facts = { origin: first, births, bias: bias?.values }
    if (!this.#config.shape.alibiSlopes) return this.#store.segments(lengths, facts)
    const { capacity } = this.#store
    const positions = new Int32Array(lengths.length * capacity)
    for (const [k, length] of lengths.entries()) {
      for (let row = 0; row < length; row++) positions[k * capacity + row] = this.#rows.position(k, row) - first
    }
    return this.#store.segments(lengths, { ...facts, positions })
  }

  /** `[K, C]`: which of the queries is the first to see a row; rows of a head before `from` are seen by all. */
  #births(from: (head: number) => number, first: number): Int32Array {
    const { lengths } = this.#rows
    const { capacity } = this.#store
    const births = new Int32Array(lengths.length * capacity)
    for (const [k, length] of lengths.entries()) {
      for (let row = from(k); row < length; row++) {
        births[k * capacity + row] = Math.max(0, this.#rows.position(k, row) - first)
      }
    }
    return births
  }
}

/** With segments that the queries see besides. */
export function seeingToo(args: AttendArgs, others: readonly KeyValueSegment[]): AttendArgs {
  return others.length === 0 ? args : { ...args, segments: [...args.segments, ...others] }
}
