/**
 * A file of named sections, each with a checksum, that is there whole or not at all. Little endian:
 *
 *     0   8 bytes  magic
 *     8   u32      version of the format
 *     12  u32      number of sections
 *     16  u64      bytes of the file
 *     24  u32      CRC-32 of the table
 *     28  u32      CRC-32 of the 28 bytes before
 *     32  table    a section: 24 bytes of name, u64 offset, u64 length, u32 CRC-32, u32 zero
 *         sections without gaps
 *
 * A CRC-32 finds every single flipped bit; it is no protection from someone who means to deceive.
 */
import { closeSync, fsyncSync, openSync, renameSync, rmSync, writeSync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { dirname } from 'node:path'
import { crc32 } from 'node:zlib'
import { KvasirError } from '../../tensor/error.ts'
import { temporaryBeside } from '../../tensor/temporary-file.ts'
import { invalidState } from './state.ts'

const magic = 'KVASIRKV'
const formatVersion = 1
const headBytes = 32
const entryBytes = 48
const nameBytes = 24

/** A section that is made when its turn comes, so that one of them is in memory at a time. */
export interface NewSection {
  readonly name: string
  readonly data: () => Uint8Array
}

/**
 * Writes a file beside `path`, makes it durable, and gives it its name. Synchronous: what sections are made of can't
 * change meanwhile.
 * @returns the bytes of the file
 * @throws KvasirError `invalid-argument` when the place can't be written to; a file that was there is as it was
 */
export function writeSections(path: string, sections: readonly NewSection[]): number {
  const temporary = temporaryBeside(path)
  const file = attempt(path, () => openSync(temporary, 'wx'))
  try {
    const size = attempt(path, () => writeAll(file, sections))
    attempt(path, () => closeSync(file))
    attempt(path, () => renameSync(temporary, path))
    syncFolder(dirname(path))
    return size
  } catch (error) {
    rmSync(temporary, { force: true })
    throw error
  }
}

function writeAll(file: number, sections: readonly NewSection[]): number {
  const table = Buffer.alloc(sections.length * entryBytes)
  let offset = headBytes + table.length
  for (const [n, { name, data }] of sections.entries()) {
    const bytes = data()
    writeWhole(file, bytes, offset)
    const entry = table.subarray(n * entryBytes, (n + 1) * entryBytes)
    entry.write(name, 0, nameBytes)
    entry.writeBigUInt64LE(BigInt(offset), nameBytes)
    entry.writeBigUInt64LE(BigInt(bytes.length), nameBytes + 8)
    entry.writeUInt32LE(crc32(bytes), nameBytes + 16)
    offset += bytes.length
  }
  const head = Buffer.alloc(headBytes)
  head.write(magic, 0)
  head.writeUInt32LE(formatVersion, 8)
  head.writeUInt32LE(sections.length, 12)
  head.writeBigUInt64LE(BigInt(offset), 16)
  head.writeUInt32LE(crc32(table), 24)
  head.writeUInt32LE(crc32(head.subarray(0, 28)), 28)
  writeWhole(file, Buffer.concat([head, table]), 0)
  fsyncSync(file)
  return offset
}

function writeWhole(file: number, bytes: Uint8Array, offset: number): void {
  for (let done = 0; done < bytes.length; ) {
    done += writeSync(file, bytes, done, Math.min(bytes.length - done, 1 << 30), offset + done)
  }
}

/** So that the new name lasts too; some systems can't. */
function syncFolder(folder: string): void {
  try {
    const handle = openSync(folder, 'r')
    fsyncSync(handle)
    closeSync(handle)
  } catch {
    // the file itself is durable
  }
}

function attempt<T>(path: string, run: () => T): T {
  try {
    return run()
  } catch (cause) {
    if (cause instanceof KvasirError) throw cause
    throw new KvasirError('invalid-argument', 'cache', `can't write ${path}: ${systemReason(cause)}`, { cause })
  }
}

/** Without the call and its files: that one of them is written under another name first is nobody's concern. */
function systemReason(cause: unknown): string {
  return (cause as Error).message.replace(/, \w+(?: '.*')?$/s, '')
}

interface Entry {
  readonly offset: number
  readonly length: number
  readonly checksum: number
}

/** An open file whose head and table are right; sections are checked when they are read. */
export class SectionFile {
  readonly size: number
  readonly #file: FileHandle
  readonly #entries: ReadonlyMap<string, Entry>

  private constructor(file: FileHandle, size: number, entries: ReadonlyMap<string, Entry>) {
    this.#file = file
    this.size = size
    this.#entries = entries
  }

  /** @throws KvasirError `not-found`, `invalid-file` */
  static async open(path: string): Promise<SectionFile> {
    const file = await open(path).catch((cause: Error) => {
      throw new KvasirError('not-found', 'cache', `can't read ${path}: ${systemReason(cause)}`, { cause })
    })
    try {
      const info = await file.stat()
      const { size } = info
      if (!info.isFile()) throw invalidState('expected a file that holds caches, got a folder or a device')
      return new SectionFile(file, size, await readTable(file, size))
    } catch (error) {
      await file.close()
      throw error
    }
  }

  get names(): readonly string[] {
    return [...this.#entries.keys()]
  }

  /** Bytes of a section; 0 where there is none. */
  lengthOf(name: string): number {
    return this.#entries.get(name)?.length ?? 0
  }

  /** @throws KvasirError `invalid-file` where there is no such section, or its checksum is wrong */
  async read(name: string): Promise<Buffer> {
    const entry = this.#entries.get(name)
    if (!entry) throw invalidState(`expected a section "${name}", got ${this.names.join(', ')}`)
    const bytes = await readExactly(this.#file, entry.length, entry.offset)
    if (crc32(bytes) !== entry.checksum) throw invalidState(`section "${name}" is damaged: its checksum is wrong`)
    return bytes
  }

  async close(): Promise<void> {
    await this.#file.close()
  }
}

async function readTable(file: FileHandle, size: number): Promise<Map<string, Entry>> {
  if (size < headBytes) throw invalidState(`expected at least ${headBytes} bytes, got ${size}`)
  const head = await readExactly(file, headBytes, 0)
  if (head.toString('latin1', 0, 8) !== magic) throw invalidState('expected a file that holds caches, got another kind')
  const version = head.readUInt32LE(8)
  if (version !== formatVersion) throw invalidState(`expected format version ${formatVersion}, got ${version}`)
  if (crc32(head.subarray(0, 28)) !== head.readUInt32LE(28)) throw invalidState('the head is damaged')
  const count = head.readUInt32LE(12)
  const written = Number(head.readBigUInt64LE(16))
  if (written !== size) throw invalidState(`expected ${written} bytes, got ${size}: the file is not whole`)
  if (headBytes + count * entryBytes > size) throw invalidState(`expected fewer than ${count} sections`)
  const table = await readExactly(file, count * entryBytes, headBytes)
  if (crc32(table) !== head.readUInt32LE(24)) throw invalidState('the table of sections is damaged')
  return readEntries(table, size)
}

/** Sections follow each other without gaps up to the end, so that every byte is under a checksum. */
function readEntries(table: Buffer, size: number): Map<string, Entry> {
  const entries = new Map<string, Entry>()
  let end = headBytes + table.length
  for (let at = 0; at < table.length; at += entryBytes) {
    const name = table.toString('utf8', at, at + nameBytes).replace(/\0+$/, '')
    const offset = Number(table.readBigUInt64LE(at + nameBytes))
    const length = Number(table.readBigUInt64LE(at + nameBytes + 8))
    if (offset !== end || !(length <= size - offset)) throw invalidState(`section "${name}" lies outside of the file`)
    entries.set(name, { offset, length, checksum: table.readUInt32LE(at + nameBytes + 16) })
    end += length
  }
  if (end !== size) throw invalidState(`expected sections up to byte ${size}, got them up to ${end}`)
  return entries
}

async function readExactly(file: FileHandle, length: number, offset: number): Promise<Buffer> {
  const bytes = allocate(length)
  for (let done = 0; done < length; ) {
    const { bytesRead } = await file.read(bytes, done, Math.min(length - done, 1 << 30), offset + done)
    if (bytesRead === 0) throw invalidState(`expected ${length} bytes at ${offset}, got ${done}`)
    done += bytesRead
  }
  return bytes
}

function allocate(length: number): Buffer {
  try {
    return Buffer.allocUnsafeSlow(length)
  } catch (cause) {
    throw new KvasirError('out-of-memory', 'cache', `no memory for a section of ${length} bytes`, { cause })
  }
}
