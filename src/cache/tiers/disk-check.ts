/**
 * Looks at the file of an LMDB environment before LMDB maps it: it trusts its file, and a page that the file has lost
 * ends the process when it is read. What an entry holds is checked when it is read (entry.ts).
 *
 * Pages 0 and 1 begin with a header, then `magic u32, version u32, address u64, map size u64, two tables of 48 bytes,
 * last page u64, transaction u64` (MDB_meta of lmdb's mdb.c); the one of the later transaction counts.
 */
import { appendFile, open, stat, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { KvasirError } from '../../tensor/error.ts'

const magic = 0xbeefc0de
const headBytes = 2 * 65536
const metaBytes = 136
/** Of LMDB's own header of a page, whose size depends on how it was compiled. */
const headers = [16, 24]
const pageSizes = [4096, 8192, 16384, 32768, 65536]

/**
 * LMDB counts pages that it freed again before they were written, so the file may be this much shorter than it says. What
 * is filled up with zeros can be read: where a page in use was lost after all, LMDB finds no page there, and entries no
 * checksum.
 */
const neverWritten = { leastBytes: 16 * 1024, share: 1 / 8, mostBytes: 256 * 1024 }

const leastFree = 64 * 1024

/**
 * LMDB maps its lock file before the disk has given room for it: on a full one the process ends at the first write.
 * @throws KvasirError `unreachable`
 */
export async function checkSpace(folder: string): Promise<void> {
  const lock = await stat(join(folder, 'lock.mdb')).catch(() => undefined)
  if (lock && lock.blocks !== 0) return // it has its room, and what was kept can be read
  const { bavail, bsize } = await statfs(folder)
  if (bavail * bsize >= leastFree) return
  const message = `expected at least ${leastFree} free bytes for the tier "disk" at ${folder}, got ${bavail * bsize}`
  throw new KvasirError('unreachable', 'cache', message)
}

/** @throws KvasirError `invalid-file` for a file that is not a whole environment; none, or an empty one, is right */
export async function checkDiskFile(file: string): Promise<void> {
  const handle = await open(file, 'r+').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })
  if (!handle) return
  try {
    const { size } = await handle.stat()
    if (size === 0) return
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(headBytes), 0, headBytes, 0)
    const needed = bytesNeeded(buffer.subarray(0, bytesRead))
    if (needed === undefined) throw broken(file, 'expected a file of lmdb, got another')
    const { leastBytes, share, mostBytes } = neverWritten
    const missing = Math.min(mostBytes, Math.max(leastBytes, share * needed))
    if (size < needed - missing) throw broken(file, `expected a file of at least ${needed} bytes, got ${size}`)
    // Behind what is there: another process may write at the same time, and nothing of that may be lost.
    if (size < needed) await appendFile(file, Buffer.alloc(needed - size))
  } finally {
    await handle.close()
  }
}

/** Bytes of all pages that are in use; undefined for what is no environment. */
function bytesNeeded(head: Buffer): number | undefined {
  for (const header of headers) {
    for (const pageSize of pageSizes) {
      const metas = [0, pageSize].map((start) => readMeta(head, start + header))
      if (!metas[0] || !metas[1]) continue
      const { lastPage } = metas[0].transaction > metas[1].transaction ? metas[0] : metas[1]
      return (lastPage + 1) * pageSize
    }
  }
  return undefined
}

function readMeta(head: Buffer, at: number): { lastPage: number; transaction: bigint } | undefined {
  if (at + metaBytes > head.length || head.readUInt32LE(at) !== magic) return undefined
  return { lastPage: Number(head.readBigUInt64LE(at + 120)), transaction: head.readBigUInt64LE(at + 128) }
}

function broken(file: string, message: string): KvasirError {
  return new KvasirError('invalid-file', 'cache', `${message}: ${file}; delete it, and its entries are made anew`)
}
