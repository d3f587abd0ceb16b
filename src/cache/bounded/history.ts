/** What leaves a kept set: for caches that log evictions, close the gaps that these leave or let tokens come back. */
import type { KeptSet } from '../../kernels/index.ts'
import type { Eviction } from '../contract.ts'
import { EvictionLog } from '../eviction-log.ts'
import type { PageArchive } from '../hierarchical/page-archive.ts'
import type { PositionAxis } from '../position-axis.ts'
import type { StateVisitor } from '../snapshot/state.ts'
import type { RetainPlan } from './state.ts'

/** Who wants to know of a token that left. */
interface Listeners {
  readonly axis: PositionAxis | undefined
  readonly archive: PageArchive | undefined
}

export class KeptHistory {
  readonly #log: EvictionLog
  readonly #listeners: Listeners
  /** Of a chunk: entries of the log, head by head, until they are in order. */
  #left: [head: number, position: number, score: number, seen: number][] | undefined

  constructor(logSize: number, listeners: Listeners) {
    this.#log = new EvictionLog(logSize)
    this.#listeners = listeners
  }

  /** After a call of `retain` for tokens from `firstPosition` on: those whose rows went to others, or that got none. */
  record(kept: KeptSet, plan: RetainPlan, firstPosition: number, numTokens: number): void {
    const { counts, slots, stride, rowDeaths, leftPositions, leftScores } = plan
    this.#left = numTokens > 1 ? [] : undefined
    for (let k = 0; k < counts.length; k++) {
      const stored = counts[k] as number
      for (let n = k * stride; n < k * stride + stored; n++) {
        const gone = (leftPositions as Float64Array)[n] as number
        if (Number.isNaN(gone)) continue
        const death = rowDeaths ? (rowDeaths[k * kept.window + (slots[n] as number)] as number) : 0
        this.#leave(kept, k, gone, (leftScores as Float32Array)[n] as number, firstPosition + death + 1)
      }
      if (stored < numTokens) this.#recordPassing(kept, plan, k, firstPosition, numTokens)
    }
    // The log may have room for the last ones only, of all heads.
    this.#left?.sort((a, b) => a[3] - b[3])
    for (const entry of this.#left ?? []) this.#log.add(...entry)
  }

  /** New tokens of a head that did not stay; those that did ascend. */
  #recordPassing(kept: KeptSet, plan: RetainPlan, head: number, firstPosition: number, numTokens: number): void {
    const { counts, tokens, stride, tokenDeaths, scores } = plan
    const end = head * stride + (counts[head] as number)
    for (let t = 0, n = head * stride; t < numTokens; t++) {
      if (n < end && tokens[n] === t) {
        n++
        continue
      }
      const death = tokenDeaths[head * numTokens + t] as number
      const score = (scores as Float32Array)[t * counts.length + head] as number
      this.#leave(kept, head, firstPosition + t, score, firstPosition + death + 1)
    }
  }

  #leave({ positions, lengths, window }: KeptSet, head: number, position: number, score: number, seen: number): void {
    const { axis, archive } = this.#listeners
    if (this.#left) this.#left.push([head, position, score, seen])
    else this.#log.add(head, position, score, seen)
    archive?.leave(head, position)
    if (!axis?.isRank) return
    const start = head * window
    axis.closeGap(head, position, positions.subarray(start, start + window), lengths[head] as number)
  }

  evictions(isByAge: boolean): Eviction[] {
    return isByAge ? this.#log.entries.map((entry) => ({ ...entry, score: null })) : this.#log.entries
  }

  visitState(visitor: StateVisitor): void {
    this.#log.visitState(visitor)
  }

  clear(): void {
    this.#log.clear()
  }

  copyFrom(other: KeptHistory): void {
    this.#log.copyFrom(other.#log)
  }
}
