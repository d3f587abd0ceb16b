/**
 * Room for a step in all layers of all its sequences, or in none: each store says how many pages it will take, pools look
 * whether there are as many together, and keep them for the step until its layers have taken them.
 */
import type { KvCache } from './contract.ts'
import type { PageBudget, PagePool } from './storage/page-pool.ts'

interface Need {
  /** What stays taken. */
  kept: number
  /** The most that one layer takes besides and gives back before the next one begins. */
  passing: number
}

export class Room {
  /** In pages. */
  readonly #needs = new Map<PagePool, Need>()

  /** A layer will take at most `most` pages, of which `kept` stay when it is done. */
  need(pool: PagePool, most: number, kept = most): void {
    if (most === 0) return
    const need = this.#needs.get(pool) ?? { kept: 0, passing: 0 }
    need.kept += kept
    need.passing = Math.max(need.passing, most - kept)
    this.#needs.set(pool, need)
  }

  /**
   * Returns the bytes of each budget that are needed.
   * @throws KvasirError `out-of-memory`, with what is needed and what is free; nothing has changed then
   */
  check(): Map<PageBudget, number> {
    const needs = new Map<PageBudget, Need>()
    for (const [{ budget, pageBytes }, { kept, passing }] of this.#needs) {
      const need = needs.get(budget) ?? { kept: 0, passing: 0 }
      need.kept += kept * pageBytes
      need.passing = Math.max(need.passing, passing * pageBytes)
      needs.set(budget, need)
    }
    const bytes = new Map<PageBudget, number>()
    for (const [budget, { kept, passing }] of needs) bytes.set(budget, kept + passing)
    for (const [budget, needed] of bytes) budget.ensure(needed)
    return bytes
  }

  /** Keeps it for whoever takes it by `use`. @throws as `check` */
  hold(): HeldRoom {
    const bytes = this.check()
    for (const [pool, { kept, passing }] of this.#needs) pool.allocate(kept + passing)
    return new HeldRoom(bytes)
  }
}

/** Bytes that nobody else can take until `end`. */
export class HeldRoom {
  readonly #bytes: Map<PageBudget, number>

  constructor(bytes: Map<PageBudget, number>) {
    this.#bytes = bytes
    for (const [budget, held] of bytes) budget.hold(held)
  }

  /** Runs what may take pages: of those that are kept here, and of those that are free. */
  use(task: () => void): void {
    const before = Array.from(this.#bytes.keys(), ({ usedBytes }) => usedBytes)
    for (const [budget, held] of this.#bytes) budget.hold(-held)
    try {
      task()
    } finally {
      let n = 0
      for (const [budget, held] of this.#bytes) {
        const taken = Math.max(0, budget.usedBytes - (before[n++] as number))
        const rest = Math.max(0, held - taken)
        this.#bytes.set(budget, rest)
        budget.hold(rest)
      }
    }
  }

  end(): void {
    for (const [budget, held] of this.#bytes) budget.hold(-held)
    this.#bytes.clear()
  }
}

/** The next tokens of one sequence. */
export interface NextTokens {
  readonly cache: KvCache
  readonly numTokens: number
}

/**
 * Keeps room for the next tokens of sequences in all of their layers, so that none of them is refused in one layer when
 * another has taken its tokens in. To be called before the first layer; each `attend` of the step goes into `use`, and
 * `end` gives back what was not needed.
 * @throws KvasirError `out-of-memory` when the pages of a pool don't suffice. All caches are as they were: the step can be
 * made when others were disposed, reset or cut back.
 */
export function holdRoom(steps: readonly NextTokens[]): HeldRoom {
  const room = new Room()
  for (const { cache, numTokens } of steps) cache.roomFor?.(numTokens, room)
  return room.hold()
}
