/** Blobs in RAM. A Map keeps the order in which keys were used last. */
import type { BlobTier, RamOptions, SealedEntry, TierStats } from './contract.ts'
import { Counts } from './counts.ts'

export class MemoryTier implements BlobTier {
  readonly name = 'ram'
  readonly maxBytes: number
  readonly #entries = new Map<string, Uint8Array>()
  readonly #counts = new Counts()
  #bytes = 0

  constructor({ maxBytes = 256 * 2 ** 20 }: RamOptions = {}) {
    this.maxBytes = maxBytes
  }

  async get(keys: readonly string[]): Promise<readonly (Uint8Array | undefined)[]> {
    return this.getNow(keys)
  }

  getNow(keys: readonly string[]): readonly (Uint8Array | undefined)[] {
    return this.#counts.answered(this.#use(keys))
  }

  async has(keys: readonly string[]): Promise<readonly boolean[]> {
    return keys.map((key) => this.#entries.has(key))
  }

  put(entries: readonly SealedEntry[]): void {
    for (const { key, bytes } of entries) {
      this.#remove(key)
      if (bytes.byteLength > this.maxBytes) {
        this.#counts.dropped++
        continue
      }
      while (this.#bytes + bytes.byteLength > this.maxBytes) {
        this.#remove(this.#entries.keys().next().value as string)
        this.#counts.evicted++
      }
      this.#entries.set(key, bytes)
      this.#bytes += bytes.byteLength
      this.#counts.written++
    }
  }

  async delete(keys: readonly string[]): Promise<void> {
    for (const key of keys) this.#remove(key)
  }

  /** In the order of `keys`, so that of blobs that belong together the first is used last. */
  touch(keys: readonly string[]): void {
    this.#use(keys)
  }

  #use(keys: readonly string[]): (Uint8Array | undefined)[] {
    const found = keys.map((key) => this.#entries.get(key))
    for (let n = keys.length - 1; n >= 0; n--) {
      const [key, bytes] = [keys[n] as string, found[n]]
      if (bytes && this.#entries.delete(key)) this.#entries.set(key, bytes)
    }
    return found
  }

  #remove(key: string): void {
    this.#bytes -= this.#entries.get(key)?.byteLength ?? 0
    this.#entries.delete(key)
  }

  async flush(): Promise<readonly string[]> {
    return []
  }

  stats(): TierStats {
    return this.#counts.toStats(this.name, { entries: this.#entries.size, bytes: this.#bytes, queuedBytes: 0 })
  }

  async close(): Promise<void> {
    this.#entries.clear()
    this.#bytes = 0
  }
}
