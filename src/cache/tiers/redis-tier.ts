/**
 * Blobs in Redis or Valkey. What does not answer in time is a miss, and the server is then left alone for a while
 * (breaker.ts): a server that hangs costs one time-out, not one a question. A connection lives until its first failure.
 */
import type { Redis } from 'iovalkey'
import { Breaker } from './breaker.ts'
import type { BlobTier, RedisOptions, SealedEntry, TierStats } from './contract.ts'
import { Counts } from './counts.ts'
import { withDeadline } from './deadline.ts'
import { WriteQueue } from './write-queue.ts'

/** The most that a server takes. */
const maxValueBytes = 512 * 2 ** 20
const batchBytes = 16 * 2 ** 20
/** Writes are in nobody's way. */
const leastWriteMs = 2000

type Connect = () => Redis

export class RedisTier implements BlobTier {
  readonly name = 'redis'
  readonly #connect: Connect
  readonly #options: Required<Omit<RedisOptions, 'url'>>
  readonly #breaker: Breaker
  readonly #queue: WriteQueue
  readonly #counts = new Counts()
  #client: Redis | undefined
  /** What went wrong with the connection. */
  #reason: unknown

  /** Does not wait for the server: one that is not there is like one that does not answer. */
  static async open(options: RedisOptions): Promise<RedisTier> {
    const { Redis: Client } = await import('iovalkey')
    const { timeoutMs = 50 } = options
    const connect = (): Redis =>
      new Client(options.url.replace(/^unix:\/\//, ''), {
        lazyConnect: true,
        enableReadyCheck: false,
        retryStrategy: () => null,
        maxRetriesPerRequest: 0,
        connectTimeout: Math.max(timeoutMs, leastWriteMs),
        autoResendUnfulfilledCommands: false,
      })
    return new RedisTier(connect, options)
  }

  private constructor(connect: Connect, options: RedisOptions) {
    const { prefix = 'kvasir:', ttlSeconds = 86400, timeoutMs = 50, leastBytesPerSecond = 50e6 } = options
    const { retryMs = 1000, maxRetryMs = 60_000, maxQueuedBytes = 256 * 2 ** 20 } = options
    const times = { ttlSeconds, timeoutMs, leastBytesPerSecond, retryMs, maxRetryMs }
    this.#options = { prefix, maxQueuedBytes, ...times }
    this.#connect = connect
    this.#breaker = new Breaker({ retryMs, maxRetryMs })
    this.#queue = new WriteQueue({
      maxBytes: maxQueuedBytes,
      batchBytes,
      write: (batch) => this.#write(batch),
      onWritten: ({ length }) => {
        this.#counts.written += length
      },
      onLost: ({ length }) => {
        this.#counts.dropped += length
      },
    })
  }

  async get(keys: readonly string[]): Promise<readonly (Uint8Array | undefined)[]> {
    const found = keys.map((key) => this.#queue.peek(key))
    const asked = keys.filter((_, i) => found[i] === undefined)
    const lengths = await this.#lengths(asked)
    const there = asked.filter((_, i) => (lengths[i] as number) > 0)
    const bytes = lengths.reduce((sum, length) => sum + length, 0)
    const read = there.length > 0 ? await this.#read(there, bytes) : []
    const byKey = new Map(there.map((key, i) => [key, read?.[i] ?? undefined]))
    return this.#counts.answered(keys.map((key, i) => found[i] ?? byKey.get(key)))
  }

  async #read(keys: readonly string[], bytes: number): Promise<(Buffer | null)[] | undefined> {
    return await this.#ask(this.#msFor(bytes), (client) => client.mgetBuffer(keys.map((key) => this.#name(key))))
  }

  async has(keys: readonly string[]): Promise<readonly boolean[]> {
    const waiting = keys.map((key) => this.#queue.peek(key) !== undefined)
    const asked = keys.filter((_, i) => !waiting[i])
    const lengths = await this.#lengths(asked)
    const there = new Set(asked.filter((_, i) => (lengths[i] as number) > 0))
    return keys.map((key, i) => waiting[i] === true || there.has(key))
  }

  /** Bytes of each value, 0: not there. Small answers show that the server is well before large ones are asked for. */
  async #lengths(keys: readonly string[]): Promise<number[]> {
    if (keys.length === 0) return []
    const answer = await this.#ask(this.#options.timeoutMs, async (client) => {
      const pipeline = client.pipeline()
      for (const key of keys) pipeline.strlen(this.#name(key))
      return (await pipeline.exec())?.map(readLength)
    })
    return keys.map((_, i) => answer?.[i] ?? 0)
  }

  put(entries: readonly SealedEntry[]): void {
    if (!this.#breaker.isOpen) {
      this.#queue.add(entries)
      return
    }
    this.#counts.skipped++
    this.#counts.dropped += entries.length
  }

  async #write(batch: readonly SealedEntry[]): Promise<void> {
    const bytes = batch.reduce((sum, entry) => sum + entry.bytes.byteLength, 0)
    const written = await this.#ask(Math.max(leastWriteMs, this.#msFor(bytes)), async (client) => {
      const pipeline = client.pipeline()
      for (const { key, bytes: value } of batch) {
        const buffer = Buffer.from(value.buffer, value.byteOffset, value.byteLength)
        pipeline.set(this.#name(key), buffer, 'EX', this.#options.ttlSeconds)
      }
      return (await pipeline.exec())?.map(checkWritten)
    })
    if (!written) throw new Error(this.#counts.lastError ?? 'the server is left alone')
  }

  async delete(keys: readonly string[]): Promise<void> {
    this.#queue.remove(keys)
    if (keys.length > 0) {
      await this.#ask(this.#options.timeoutMs, (client) => client.del(keys.map((key) => this.#name(key))))
    }
  }

  /** Undefined when the server failed, or was not asked because it has. */
  async #ask<T>(milliseconds: number, question: (client: Redis) => Promise<T>): Promise<T | undefined> {
    if (this.#breaker.isOpen) {
      this.#counts.skipped++
      return undefined
    }
    const client = this.#open()
    try {
      const answer = await withDeadline(question(client), milliseconds)
      this.#breaker.succeeded()
      return answer
    } catch (error) {
      // Several questions may wait for one server: it has failed once.
      if (this.#client === client) {
        this.#client = undefined
        this.#counts.failed(this.#reason ?? error)
        this.#breaker.failed()
        client.disconnect()
      }
      return undefined
    }
  }

  #open(): Redis {
    if (this.#client) return this.#client
    const client = this.#connect()
    this.#reason = undefined
    // Commands that fail for it say no more than that the connection is closed.
    client.on('error', (error: unknown) => {
      if (this.#client === client) this.#reason = error
    })
    this.#client = client
    return client
  }

  #msFor(bytes: number): number {
    return this.#options.timeoutMs + (bytes / this.#options.leastBytesPerSecond) * 1000
  }

  #name(key: string): string {
    return this.#options.prefix + key
  }

  flush(): Promise<readonly string[]> {
    return this.#queue.drain()
  }

  stats(): TierStats {
    return this.#counts.toStats(this.name, { queuedBytes: this.#queue.queuedBytes })
  }

  async close(): Promise<void> {
    await this.flush()
    this.#client?.disconnect()
    this.#client = undefined
  }
}

type Answer = [error: Error | null, result: unknown]

/** The first error of a pipeline is thrown. */
function checkWritten([error]: Answer): boolean {
  if (error) throw error
  return true
}

function readLength([error, result]: Answer): number {
  if (error?.message.startsWith('WRONGTYPE')) return 0
  if (error) throw error
  if (Number.isInteger(result) && (result as number) >= 0 && (result as number) <= maxValueBytes)
    return result as number
  throw new Error(`expected a length up to ${maxValueBytes}, got ${String(result).slice(0, 40)}`)
}
