/** Entries that wait to be written by a slow tier: bounded in bytes, in batches, in the order in which they came. */
import type { SealedEntry } from './contract.ts'

export interface WriteQueueOptions {
  readonly maxBytes: number
  /** Bytes that are written at once; at least one entry. */
  readonly batchBytes: number
  /** Makes entries durable, or throws. */
  readonly write: (batch: readonly SealedEntry[]) => Promise<void>
  readonly onWritten: (entries: readonly SealedEntry[]) => void
  readonly onLost: (entries: readonly SealedEntry[], cause: unknown) => void
}

export class WriteQueue {
  readonly #options: WriteQueueOptions
  /** By key: an entry that comes again takes the place of the one that waits. */
  readonly #waiting = new Map<string, SealedEntry>()
  #writing = new Map<string, SealedEntry>()
  #bytes = 0
  #work: Promise<void> | undefined
  #lost = new Set<string>()

  constructor(options: WriteQueueOptions) {
    this.#options = options
  }

  get queuedBytes(): number {
    return this.#bytes
  }

  /** What waits or is being written. */
  peek(key: string): Uint8Array | undefined {
    return (this.#waiting.get(key) ?? this.#writing.get(key))?.bytes
  }

  add(entries: readonly SealedEntry[]): void {
    const refused = entries.filter((entry) => !this.#accept(entry))
    if (refused.length > 0) this.#lose(refused, undefined)
    this.#work ??= this.#waiting.size > 0 ? this.#run() : undefined
  }

  #accept(entry: SealedEntry): boolean {
    const before = this.#waiting.get(entry.key)?.bytes.byteLength ?? 0
    const added = entry.bytes.byteLength - before
    if (this.#bytes + added > this.#options.maxBytes) return false
    this.#bytes += added
    this.#waiting.set(entry.key, entry)
    this.#lost.delete(entry.key)
    return true
  }

  remove(keys: readonly string[]): void {
    for (const key of keys) {
      this.#bytes -= this.#waiting.get(key)?.bytes.byteLength ?? 0
      this.#waiting.delete(key)
    }
  }

  /** Waits for all that was added before; returns the keys that were lost since the last call. */
  async drain(): Promise<readonly string[]> {
    while (this.#work) await this.#work
    const lost = [...this.#lost]
    this.#lost.clear()
    return lost
  }

  async #run(): Promise<void> {
    await Promise.resolve() // whatever is added in the same turn goes into the same batch
    while (this.#waiting.size > 0) {
      this.#writing = this.#take()
      const batch = [...this.#writing.values()]
      try {
        await this.#options.write(batch)
        this.#options.onWritten(batch)
      } catch (error) {
        this.#lose(batch, error)
      }
      for (const { bytes } of batch) this.#bytes -= bytes.byteLength
      this.#writing = new Map()
    }
    this.#work = undefined
  }

  #take(): Map<string, SealedEntry> {
    const batch = new Map<string, SealedEntry>()
    let bytes = 0
    for (const [key, entry] of this.#waiting) {
      bytes += entry.bytes.byteLength
      if (batch.size > 0 && bytes > this.#options.batchBytes) break
      batch.set(key, entry)
      this.#waiting.delete(key)
    }
    return batch
  }

  #lose(entries: readonly SealedEntry[], cause: unknown): void {
    for (const { key } of entries) if (!this.#waiting.has(key)) this.#lost.add(key)
    this.#options.onLost(entries, cause)
  }
}
