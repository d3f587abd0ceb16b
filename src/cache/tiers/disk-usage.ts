/** When each entry on disk was used last and how big it is: a table beside the entries, so that it survives restarts. */
import type { Database } from 'lmdb'

const recordBytes = 16
/** LMDB keeps large values in pages of their own. */
const pageBytes = 4096

export interface Use {
  readonly usedAt: number
  readonly bytes: number
}

export class DiskUsage {
  readonly #table: Database<Buffer, string>
  #last = 0
  /** Used since they were written down last. */
  readonly #touched = new Set<string>()

  constructor(table: Database<Buffer, string>) {
    this.#table = table
  }

  touch(keys: readonly string[]): void {
    for (const key of keys.toReversed()) {
      this.#touched.delete(key)
      this.#touched.add(key)
    }
  }

  get numTouched(): number {
    return this.#touched.size
  }

  /** Within a batch of writes. */
  record(key: string, length: number): void {
    this.#put(key, Math.ceil(length / pageBytes) * pageBytes)
  }

  /** Within a batch of writes. */
  writeTouched(): void {
    for (const key of this.#touched) {
      const use = decode(this.#table.getBinary(key))
      if (use) this.#put(key, use.bytes)
    }
    this.#touched.clear()
  }

  remove(key: string): void {
    this.#touched.delete(key)
    inBatch(this.#table.remove(key))
  }

  /** All entries, those of other processes too; what was used longest ago first. */
  list(): { readonly key: string; readonly use: Use }[] {
    const all: { key: string; use: Use }[] = []
    for (const { key, value } of this.#table.getRange()) {
      const use = decode(value)
      if (use) all.push({ key, use })
    }
    return all.sort((a, b) => a.use.usedAt - b.use.usedAt)
  }

  #put(key: string, bytes: number): void {
    // Entries of one millisecond keep their order.
    this.#last = Math.max(Date.now(), this.#last + 1e-3)
    const record = Buffer.alloc(recordBytes)
    record.writeDoubleLE(this.#last, 0)
    record.writeDoubleLE(bytes, 8)
    inBatch(this.#table.put(key, record))
  }
}

/** One write of a batch: whether it worked is what the promise of the batch says. */
export function inBatch(write: Promise<unknown>): void {
  write.catch(() => undefined)
}

function decode(record: Buffer | undefined): Use | undefined {
  if (record?.length !== recordBytes) return undefined
  const [usedAt, bytes] = [record.readDoubleLE(0), record.readDoubleLE(8)]
  return Number.isFinite(usedAt) && bytes >= 0 && Number.isFinite(bytes) ? { usedAt, bytes } : undefined
}
