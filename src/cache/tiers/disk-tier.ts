/**
 * Blobs in an LMDB environment: a memory map that several threads and processes read without locks, and whose writes
 * are transactions. A process that is killed loses what waited, never what `flush` has acknowledged.
 *
 * Byte caps count entries, in whole pages. LMDB's file does not shrink; room that evictions free is used again.
 */
import { join } from 'node:path'
import type { Database, RootDatabase } from 'lmdb'
import { KvasirError } from '../../tensor/error.ts'
import { makeFolder } from '../../tensor/make-folder.ts'
import type { BlobTier, DiskOptions, SealedEntry, TierStats } from './contract.ts'
import { Counts } from './counts.ts'
import { withDeadline } from './deadline.ts'
import { checkDiskFile, checkSpace } from './disk-check.ts'
import { DiskUsage, inBatch } from './disk-usage.ts'
import { WriteQueue } from './write-queue.ts'

const batchBytes = 4 * 2 ** 20
/** Evictions free this share besides, so that not every write has to look for the oldest. */
const spare = 1 / 16
const touchesKept = 4096

export class DiskTier implements BlobTier {
  readonly name = 'disk'
  readonly #environment: RootDatabase<Buffer, string>
  readonly #entries: Database<Buffer, string>
  readonly #usage: DiskUsage
  readonly #queue: WriteQueue
  readonly #counts = new Counts()
  readonly #maxBytes: number
  /** As of the last count, and what this process has written since. */
  #bytes = 0
  #isClosed = false
  /** A write has had no answer in time, nor since: LMDB would not answer others either. */
  #isStuck = false
  readonly #timeoutMs: number

  /**
   * @throws KvasirError `invalid-file` for a broken file; `denied` where the folder can't be read and written;
   * `unreachable` for anything else that keeps LMDB from opening it
   */
  static async open(options: DiskOptions): Promise<DiskTier> {
    const { path } = options
    try {
      await makeFolder(path)
      await checkSpace(path)
      await checkDiskFile(join(path, 'data.mdb'))
      const { open } = await import('lmdb')
      const common = { encoding: 'binary', maxDbs: 2, noMemInit: false, eventTurnBatching: false } as const
      const environment = open<Buffer, string>({ path, ...common })
      try {
        return new DiskTier(environment, options)
      } catch (error) {
        await environment.close()
        throw error
      }
    } catch (cause) {
      throw cause instanceof KvasirError ? cause : notOpened(path, cause as NodeJS.ErrnoException)
    }
  }

  private constructor(environment: RootDatabase<Buffer, string>, options: DiskOptions) {
    const { maxBytes = 2 ** 30, maxQueuedBytes = 256 * 2 ** 20, timeoutMs = 10_000 } = options
    this.#environment = environment
    this.#entries = environment.openDB<Buffer, string>('entries', { encoding: 'binary' })
    this.#usage = new DiskUsage(environment.openDB<Buffer, string>('uses', { encoding: 'binary' }))
    this.#maxBytes = maxBytes
    this.#timeoutMs = timeoutMs
    this.#count()
    this.#queue = new WriteQueue({
      maxBytes: maxQueuedBytes,
      batchBytes,
      write: (batch) => this.#write(batch),
      onWritten: ({ length }) => {
        this.#counts.written += length
      },
      onLost: ({ length }, cause) => {
        this.#counts.dropped += length
        if (cause !== undefined) this.#counts.failed(cause)
      },
    })
  }

  async get(keys: readonly string[]): Promise<readonly (Uint8Array | undefined)[]> {
    return this.getNow(keys)
  }

  getNow(keys: readonly string[]): readonly (Uint8Array | undefined)[] {
    if (this.#isClosed) return keys.map(() => undefined)
    this.touch(keys)
    return this.#counts.answered(keys.map((key) => this.#queue.peek(key) ?? this.#read(key)))
  }

  #read(key: string): Uint8Array | undefined {
    return this.#attempt(() => this.#entries.getBinary(key))
  }

  #attempt<T>(read: () => T | undefined): T | undefined {
    try {
      return read()
    } catch (error) {
      this.#counts.failed(error)
      return undefined
    }
  }

  borrow(key: string): Uint8Array | undefined {
    if (this.#isClosed) return undefined
    this.touch([key])
    const waiting = this.#queue.peek(key)
    const bytes = waiting ?? this.#attempt(() => this.#entries.getBinaryFast(key))
    // Of LMDB's own buffer, which may be longer, only `length` is that of the entry.
    const entry = bytes && new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length)
    return this.#counts.answered([entry])[0]
  }

  async has(keys: readonly string[]): Promise<readonly boolean[]> {
    if (this.#isClosed) return keys.map(() => false)
    return keys.map((key) => this.#queue.peek(key) !== undefined || this.#entries.doesExist(key))
  }

  put(entries: readonly SealedEntry[]): void {
    if (!this.#isClosed) this.#queue.add(entries)
  }

  async delete(keys: readonly string[]): Promise<void> {
    if (this.#isClosed) return
    this.#queue.remove(keys)
    await this.#batch(() => {
      for (const key of keys) this.#remove(key)
    }).catch((error: unknown) => this.#counts.failed(error))
  }

  touch(keys: readonly string[]): void {
    this.#usage.touch(keys)
    if (this.#usage.numTouched > touchesKept && !this.#isClosed) void this.#saveTouched()
  }

  async #saveTouched(): Promise<void> {
    await this.#batch(() => this.#usage.writeTouched()).catch((error: unknown) => this.#counts.failed(error))
  }

  async #write(batch: readonly SealedEntry[]): Promise<void> {
    await this.#batch(() => {
      this.#usage.writeTouched()
      for (const { key, bytes } of batch) {
        inBatch(this.#entries.put(key, Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)))
        this.#usage.record(key, bytes.byteLength)
        this.#bytes += bytes.byteLength
      }
    })
    await this.#makeRoom()
  }

  /**
   * All or nothing, and on disk when it is over. LMDB's own thread writes: a transaction of this thread would hold it up,
   * and when the thread is ended within one (`process.exit`), lmdb 3.5.6 waits for ever for the lock that it holds. Where
   * another process holds that lock, or a page of the file is broken, there is no answer: until one comes, nothing more is
   * written.
   */
  async #batch(operations: () => void): Promise<void> {
    if (this.#isStuck) throw new Error('an earlier write got no answer')
    let isAnswered = false
    const answered = this.#transact(operations).finally(() => {
      isAnswered = true
      this.#isStuck = false
    })
    try {
      await withDeadline(answered, this.#timeoutMs)
    } catch (error) {
      if (!isAnswered) this.#isStuck = true
      throw error
    }
  }

  async #transact(operations: () => void): Promise<void> {
    try {
      await this.#environment.batch(operations)
      await this.#environment.flushed
    } catch (error) {
      const { commitError } = error as { readonly commitError?: Promise<unknown> }
      throw commitError ? await commitError.catch((cause: unknown) => cause) : error
    }
  }

  async #makeRoom(): Promise<void> {
    if (this.#bytes <= this.#maxBytes) return
    const all = this.#count()
    const gone: string[] = []
    let rest = this.#bytes
    for (const { key, use } of all) {
      if (rest <= this.#maxBytes * (gone.length === 0 ? 1 : 1 - spare)) break
      gone.push(key)
      rest -= use.bytes
    }
    if (gone.length === 0) return
    await this.#batch(() => {
      for (const key of gone) this.#remove(key)
    })
    this.#counts.evicted += gone.length
    this.#bytes = rest
  }

  #remove(key: string): void {
    inBatch(this.#entries.remove(key))
    this.#usage.remove(key)
  }

  /** Counts anew, what other processes wrote too. */
  #count(): ReturnType<DiskUsage['list']> {
    const all = this.#usage.list()
    this.#bytes = all.reduce((sum, { use }) => sum + use.bytes, 0)
    return all
  }

  async flush(): Promise<readonly string[]> {
    const lost = await this.#queue.drain()
    if (this.#usage.numTouched > 0 && !this.#isClosed) await this.#saveTouched()
    return lost
  }

  stats(): TierStats {
    const entries = this.#isClosed ? 0 : (this.#entries.getStats() as { entryCount: number }).entryCount
    return this.#counts.toStats(this.name, { entries, bytes: this.#bytes, queuedBytes: this.#queue.queuedBytes })
  }

  async close(): Promise<void> {
    if (this.#isClosed) return
    await this.flush()
    this.#isClosed = true
    const closed = Promise.resolve(this.#environment.close())
    await withDeadline(closed, this.#timeoutMs).catch(() => undefined)
  }
}

/** Numbers with which LMDB names a file that is not, or no longer, what it wrote. */
const broken = { corrupted: -30796, invalid: -30793, pageNotFound: -30797 }

function notOpened(path: string, cause: NodeJS.ErrnoException): KvasirError {
  const { code, message } = cause
  if (Object.values(broken).includes(code as unknown as number)) {
    const expected = `expected a whole file of lmdb in ${path}, got ${message}; delete it, and its entries are made anew`
    return new KvasirError('invalid-file', 'cache', expected, { cause })
  }
  const isDenied = code === 'EACCES' || code === 'EPERM' || code === 'EROFS' || /denied|read-only/i.test(message)
  const expected = `expected a folder that can be read and written for the disk tier, got ${path}: ${message}`
  return new KvasirError(isDenied ? 'denied' : 'unreachable', 'cache', expected, { cause })
}
