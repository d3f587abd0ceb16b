/**
 * SHA-256 of files, remembered: a file of many gigabytes is read once, and again only after it was written to.
 *
 * What is remembered lies in a folder of small files named by the identity of the file (device, inode, size, times of
 * change to the nanosecond). The time of the last status change is one of them, which no program can set back.
 */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { makeFolder } from '../tensor/make-folder.ts'
import { temporaryBeside } from '../tensor/temporary-file.ts'

/** @returns hex */
export async function fileDigest(file: string, memory: string): Promise<string> {
  const before = await identityOf(file)
  const known = await readFile(join(memory, before), 'utf8').catch(() => '')
  if (/^[0-9a-f]{64}$/.test(known)) return known
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(file, { highWaterMark: 1 << 20 })) hash.update(chunk as Uint8Array)
  const digest = hash.digest('hex')
  // Without a place to remember it, it is made again next time.
  if ((await identityOf(file)) === before) await writeWhole(join(memory, before), digest).catch(() => {})
  return digest
}

/** Writes a file with its folder so that nobody ever sees half of it, however many do so at once. */
export async function writeWhole(file: string, text: string): Promise<void> {
  await makeFolder(dirname(file))
  const temporary = temporaryBeside(file)
  try {
    await writeFile(temporary, text, { flush: true })
    await rename(temporary, file)
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
}

async function identityOf(file: string): Promise<string> {
  const { dev, ino, size, mtimeNs, ctimeNs } = await stat(file, { bigint: true })
  return createHash('sha256').update([dev, ino, size, mtimeNs, ctimeNs].join(' ')).digest('hex').slice(0, 32)
}
