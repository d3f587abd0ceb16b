/**
 * Blobs in several tiers, fastest first. What is put goes to all of them, so that what one has to let go the next still
 * has; what a slower one finds is put into the faster ones. Every entry is checked when it comes into the memory of this
 * process: one that was sealed here, or stayed here since it was read, is not summed up again.
 */
import type { Blob, BlobTier, TierStats } from './contract.ts'
import { openEntry, sealEntry } from './entry.ts'

/** Entries that are asked for at once where asking takes time. */
const groupKeys = 16

interface Opened {
  readonly key: string
  readonly body: Uint8Array | undefined
}

/** What `openTiers` gives: `put`, `get`, `flush`, `stats` and `close` over all tiers. */
export class TieredStore {
  readonly #tiers: readonly BlobTier[]
  readonly #corrupt = new Map<BlobTier, number>()
  /** Entries in this process's memory that are right, with their bodies once somebody has asked for them. */
  readonly #checked = new WeakMap<Uint8Array, Opened>()
  /** Wrong entries that are being deleted. */
  #cleaning: Promise<unknown> = Promise.resolve()

  constructor(tiers: readonly BlobTier[]) {
    this.#tiers = tiers
  }

  /** What may be in RAM at most. */
  get ramBytes(): number {
    return this.#tiers.reduce((sum, { name, maxBytes = 0 }) => sum + (name === 'ram' ? maxBytes : 0), 0)
  }

  /** Blobs in the order of `keys`; undefined: make it anew. They must not be written to. */
  async get(keys: readonly string[], isHeld = false): Promise<(Uint8Array | undefined)[]> {
    let bodies = keys.map((): Uint8Array | undefined => undefined)
    const tiers = this.#tiersFor(isHeld)
    for (const [i, tier] of tiers.entries()) {
      const missing = keys.filter((_, n) => !bodies[n])
      if (missing.length === 0) break
      bodies = filled(bodies, this.#take(tiers, i, missing, await tier.get(missing)))
    }
    this.#touchSlower(keys, bodies)
    return bodies
  }

  /** The same, from those tiers that need not wait. */
  getNow(keys: readonly string[]): (Uint8Array | undefined)[] {
    let bodies = keys.map((): Uint8Array | undefined => undefined)
    for (const [i, tier] of this.#tiers.entries()) {
      const missing = keys.filter((_, n) => !bodies[n])
      if (missing.length === 0) break
      if (tier.getNow) bodies = filled(bodies, this.#take(this.#tiers, i, missing, tier.getNow(missing)))
    }
    this.#touchSlower(keys, bodies)
    return bodies
  }

  /**
   * Shows bodies one after the other in the order of `keys`, up to the first that is not there or that `use` refuses by
   * false; returns how many it took. A body is good during the call alone.
   * @param isHeld whether the caller keeps what it reads in memory, so that RAM is neither asked nor filled
   */
  async visit(keys: readonly string[], use: (body: Uint8Array, n: number) => boolean, isHeld = false): Promise<number> {
    const [first] = this.#tiersFor(isHeld)
    let done = 0
    while (first?.borrow && done < keys.length) {
      const key = keys[done] as string
      const bytes = first.borrow(key)
      const body = bytes && this.#open(first, key, bytes)
      if (!body) break
      if (!use(body, done)) return done
      done++
    }
    while (done < keys.length) {
      const bodies = await this.get(keys.slice(done, done + groupKeys), isHeld)
      for (const body of bodies) {
        if (!body || !use(body, done)) return done
        done++
      }
    }
    return done
  }

  /** The bodies of what a tier has read; faster ones have them from now on. */
  #take(
    tiers: readonly BlobTier[],
    index: number,
    keys: readonly string[],
    read: readonly (Uint8Array | undefined)[],
  ): (Uint8Array | undefined)[] {
    const tier = tiers[index] as BlobTier
    return keys.map((key, n) => {
      const bytes = read[n]
      const body = bytes && this.#open(tier, key, bytes)
      if (!body) return undefined
      if (!this.#checked.get(bytes)?.body) this.#checked.set(bytes, { key, body })
      for (let faster = 0; faster < index; faster++) tiers[faster]?.put([{ key, bytes }])
      return body
    })
  }

  /** The body; an entry that is wrong is counted and deleted. */
  #open(tier: BlobTier, key: string, bytes: Uint8Array): Uint8Array | undefined {
    const known = this.#checked.get(bytes)
    if (known?.body && known.key === key) return known.body
    const body = openEntry(key, bytes, known !== undefined)
    if (body) return body
    this.#corrupt.set(tier, (this.#corrupt.get(tier) ?? 0) + 1)
    this.#cleaning = Promise.all([this.#cleaning, tier.delete([key])])
    return undefined
  }

  #touchSlower(keys: readonly string[], bodies: readonly (Uint8Array | undefined)[]): void {
    if (this.#tiers.length < 2) return
    const found = keys.filter((_, n) => bodies[n])
    if (found.length > 0) for (const tier of this.#tiers.slice(1)) tier.touch?.(found)
  }

  /** These were used, the first of them last: it stays longest. */
  touch(keys: readonly string[]): void {
    for (const tier of this.#tiers) tier.touch?.(keys)
  }

  /** Whether there is more than the memory of this process. */
  get isLasting(): boolean {
    return this.#tiersFor(true).length > 0
  }

  /** @param isHeld whether the caller has the blobs in memory, in a form of its own, so that RAM is left out */
  #tiersFor(isHeld: boolean): readonly BlobTier[] {
    return isHeld ? this.#tiers.filter(({ name }) => name !== 'ram') : this.#tiers
  }

  /** Whether some tier has each of them, as far as can be told without reading. */
  async has(keys: readonly string[], isHeld = false): Promise<boolean[]> {
    const has = keys.map(() => false)
    for (const tier of this.#tiersFor(isHeld)) {
      const open = keys.flatMap((_, i) => (has[i] ? [] : [i]))
      if (open.length === 0) break
      const answers = await tier.has(open.map((i) => keys[i] as string))
      for (const [n, i] of open.entries()) has[i] = answers[n] === true
    }
    return has
  }

  /**
   * Copies blobs; disk and Redis have them later.
   * @throws KvasirError `invalid-argument` for a key that not every tier can have
   */
  put(blobs: readonly Blob[], isHeld = false): void {
    const entries = blobs.map(sealEntry)
    for (const { key, bytes } of entries) this.#checked.set(bytes, { key, body: undefined })
    for (const tier of this.#tiersFor(isHeld)) tier.put(entries)
  }

  async delete(keys: readonly string[]): Promise<void> {
    for (const tier of this.#tiers) await tier.delete(keys)
  }

  /**
   * Waits until everything that was put before is durable in every tier that can be, or lost to it.
   * @returns keys that some tier has lost since the last flush; empty: all is acknowledged
   */
  async flush(): Promise<string[]> {
    await this.#cleaning
    const lost = await Promise.all(this.#tiers.map((tier) => tier.flush()))
    return [...new Set(lost.flat())]
  }

  stats(): TierStats[] {
    return this.#tiers.map((tier) => {
      const { hits, corrupt, misses, ...rest } = tier.stats()
      const wrong = this.#corrupt.get(tier) ?? 0
      return { ...rest, hits: hits - wrong, misses: misses + wrong, corrupt: corrupt + wrong }
    })
  }

  async close(): Promise<void> {
    await this.#cleaning
    for (const tier of this.#tiers) await tier.close()
  }
}

/** `bodies` with `more` in the places, in their order, where there is none. */
function filled(bodies: (Uint8Array | undefined)[], more: readonly (Uint8Array | undefined)[]): typeof bodies {
  if (more.length === bodies.length) return [...more]
  let next = 0
  return bodies.map((body) => body ?? more[next++])
}
