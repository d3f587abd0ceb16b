/**
 * Blobs by key in RAM, on disk and in Redis. A tier keeps sealed entries (entry.ts) as opaque bytes and may lose any of
 * them at any time: whoever asks must be able to make the blob anew. Nothing here throws after opening.
 */

export const tierNames = ['ram', 'disk', 'redis'] as const
export type TierName = (typeof tierNames)[number]

/** Where blobs are kept, fastest first. */
export type TierOptions =
  | ({ readonly kind: 'ram' } & RamOptions)
  | ({ readonly kind: 'disk' } & DiskOptions)
  | ({ readonly kind: 'redis' } & RedisOptions)

export interface RamOptions {
  /** Default 256 MiB. What was used longest ago goes first. */
  readonly maxBytes?: number
}

export interface DiskOptions {
  /** A folder, made when it is not there; several processes may share it. */
  readonly path: string
  /** Of entries (default 1 GiB); the file also has room that was freed and is used again. */
  readonly maxBytes?: number
  /** Bytes that may wait to be written (default 256 MiB); what comes beyond is dropped and counted. */
  readonly maxQueuedBytes?: number
  /** Milliseconds that a write may take (default 10,000); while one takes longer, others are lost. */
  readonly timeoutMs?: number
}

export interface RedisOptions {
  /** `redis://[user:password@]host[:port][/db]`, `rediss://` or `unix:///path` of Redis or Valkey. */
  readonly url: string
  /** In front of every key (default `kvasir:`). */
  readonly prefix?: string
  /** Seconds after which the server forgets an entry (default a day). How many bytes it keeps is the server's choice. */
  readonly ttlSeconds?: number
  /** Milliseconds that a first answer may take (default 50); answers of many bytes get more, at `leastBytesPerSecond`. */
  readonly timeoutMs?: number
  /** Default 50 million. */
  readonly leastBytesPerSecond?: number
  /** Milliseconds for which a server that failed is left alone (default 1000), doubling up to `maxRetryMs` (60000). */
  readonly retryMs?: number
  readonly maxRetryMs?: number
  /** Bytes that may wait to be sent (default 256 MiB); what comes beyond is dropped and counted. */
  readonly maxQueuedBytes?: number
}

/** Bytes under a name. `parts` are joined. */
export interface Blob {
  /** Up to 512 printable ASCII characters without spaces. */
  readonly key: string
  readonly parts: readonly Uint8Array[]
}

/** What tiers hold. */
export interface SealedEntry {
  readonly key: string
  readonly bytes: Uint8Array
}

export interface BlobTier {
  readonly name: TierName
  /** Of those in RAM. */
  readonly maxBytes?: number
  /** Entries in the order of `keys`; undefined: not there, or not to be had now. Callers must not write to them. */
  get(keys: readonly string[]): Promise<readonly (Uint8Array | undefined)[]>
  /** The same without a wait, of tiers that can. */
  getNow?(keys: readonly string[]): readonly (Uint8Array | undefined)[]
  /** One of them, in memory that the next read uses again: nothing is made for it. */
  borrow?(key: string): Uint8Array | undefined
  has(keys: readonly string[]): Promise<readonly boolean[]>
  /** Takes entries over, which must not change afterwards; tiers beyond RAM write them in the background. */
  put(entries: readonly SealedEntry[]): void
  delete(keys: readonly string[]): Promise<void>
  /** These were used, from a faster tier. */
  touch?(keys: readonly string[]): void
  /** Waits until all that was put before is durable or lost; returns the keys that were lost since the last flush. */
  flush(): Promise<readonly string[]>
  stats(): TierStats
  /** Flushes and lets go of everything. */
  close(): Promise<void>
}

/** Counts since opening. Bytes and entries are undefined where only the server knows. */
export interface TierStats {
  readonly name: TierName
  readonly entries?: number
  readonly bytes?: number
  readonly hits: number
  readonly misses: number
  readonly written: number
  /** Entries that went to make room. */
  readonly evicted: number
  /** Entries that were wrong when read: another version, another key, another checksum. */
  readonly corrupt: number
  /** Entries that were not written, because too many waited, the tier was left alone, or writing failed. */
  readonly dropped: number
  /** Times that the tier did not answer in time or with an error. */
  readonly failures: number
  /** Questions that were not asked, because the tier was left alone after a failure. */
  readonly skipped: number
  readonly queuedBytes: number
  readonly lastError?: string
}
