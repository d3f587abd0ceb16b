/** What a tier counts. */
import type { TierName, TierStats } from './contract.ts'

export class Counts {
  hits = 0
  misses = 0
  written = 0
  evicted = 0
  corrupt = 0
  dropped = 0
  failures = 0
  skipped = 0
  lastError: string | undefined

  /** Counts answers. */
  answered<T>(found: readonly (T | undefined)[]): readonly (T | undefined)[] {
    for (const item of found) {
      if (item === undefined) this.misses++
      else this.hits++
    }
    return found
  }

  failed(error: unknown): void {
    this.failures++
    this.lastError = error instanceof Error ? error.message : String(error)
  }

  toStats(name: TierName, rest: Pick<TierStats, 'entries' | 'bytes' | 'queuedBytes'>): TierStats {
    const { hits, misses, written, evicted, corrupt, dropped, failures, skipped, lastError } = this
    const counts = { hits, misses, written, evicted, corrupt, dropped, failures, skipped }
    return { name, ...rest, ...counts, ...(lastError !== undefined && { lastError }) }
  }
}
