/**
 * What `retain` does not tell: which token left when a row was given to another. Kept beside the kept set as a copy of
 * positions and scores from before, for caches that log evictions, close the gaps that these leave or
 * let tokens come back.
 */
import type { KeptSet } from '../kernels/index.ts'
import type { Eviction } from './contract.ts'
import { EvictionLog } from './eviction-log.ts'
import type { PageArchive } from './hierarchical/page-archive.ts'
import type { RetainPlan } from './kept-state.ts'
import type { PositionAxis } from './position-axis.ts'
import type { StateVisitor } from './snapshot/state.ts'

export class KeptHistory {
  /** `[K, W]`; NaN: the row is free. */
  readonly #positions: Float64Array
  readonly #scores: Float32Array
  readonly #log: EvictionLog

  constructor(numKvHeads: number, window: number, logSize: number) {
    this.#positions = new Float64Array(numKvHeads * window).fill(Number.NaN)
    this.#scores = new Float32Array(numKvHeads * window)
    this.#log = new EvictionLog(logSize)
  }

  /** Compares the kept set after a call of `retain` with the one before. */
  record(
    kept: KeptSet,
    { counts, slots, tokens, stride, tokenDeaths, rowDeaths }: RetainPlan,
    { firstPosition, numTokens }: { firstPosition: number; numTokens: number },
    axis: PositionAxis | undefined,
    archive: PageArchive | undefined,
  ): void {
    const { numKvHeads, window } = kept
    const leave = (head: number, position: number, score: number, seenTokens: number): void => {
      this.#log.add(head, position, score, seenTokens)
      archive?.leave(head, position)
      if (!axis?.isRank) return
      const start = head * window
      axis.closeGap(head, position, kept.positions.subarray(start, start + window), kept.lengths[head] as number)
    }
    for (let k = 0; k < numKvHeads; k++) {
      const base = k * window
      let stored = 0
      for (let n = k * stride; n < k * stride + (counts[k] as number); n++) {
        const at = base + (slots[n] as number)
        const gone = this.#positions[at] as number
        if (!Number.isNaN(gone)) {
          const death = rowDeaths ? (rowDeaths[at] as number) : 0
          leave(k, gone, this.#scores[at] as number, firstPosition + death + 1)
        }
        this.#positions[at] = kept.positions[at] as number
        this.#scores[at] = kept.scores[at] as number
        stored++
      }
      if (stored === numTokens) continue
      // Tokens that stayed ascend.
      for (let t = 0, n = k * stride; t < numTokens; t++) {
        if (n < k * stride + stored && tokens[n] === t) {
          n++
          continue
        }
        const death = tokenDeaths[k * numTokens + t] as number
        leave(k, firstPosition + t, Number.NaN, firstPosition + death + 1)
      }
    }
  }

  evictions(isByAge: boolean): Eviction[] {
    return isByAge ? this.#log.entries.map((entry) => ({ ...entry, score: null })) : this.#log.entries
  }

  /** Between calls, positions and scores are those of the kept set. */
  visitState(visitor: StateVisitor, { positions, scores, lengths, window }: KeptSet): void {
    this.#log.visitState(visitor)
    if (!visitor.isReading) return
    for (const [k, length] of lengths.entries()) {
      const start = k * window
      this.#positions.set(positions.subarray(start, start + length), start)
      this.#scores.set(scores.subarray(start, start + length), start)
    }
  }

  clear(): void {
    this.#positions.fill(Number.NaN)
    this.#log.clear()
  }

  copyFrom(other: KeptHistory): void {
    this.#positions.set(other.#positions)
    this.#scores.set(other.#scores)
    this.#log.copyFrom(other.#log)
  }
}
