/** Opens files of a model, and says of those that can't be opened why. */
import { type FileHandle, open } from 'node:fs/promises'
import { KvasirError, type KvasirErrorCode } from '../tensor/error.ts'

const codes: Readonly<Record<string, KvasirErrorCode>> = {
  ENOENT: 'not-found',
  ENOTDIR: 'not-found',
  EACCES: 'denied',
  EPERM: 'denied',
}

/** Only what is not there is `not-found`: a folder or a loop of links under a file's name is `invalid-file`. */
export function unreadable(area: string, file: string, cause: unknown): KvasirError {
  const { code = 'unknown' } = cause as NodeJS.ErrnoException
  const reason = code === 'ENOENT' ? '' : ` (${code})`
  return new KvasirError(codes[code] ?? 'invalid-file', area, `expected a readable file at ${file}${reason}`, { cause })
}

/** @throws KvasirError as `unreadable` */
export async function openForReading(area: string, file: string): Promise<{ handle: FileHandle; size: number }> {
  const handle = await open(file).catch((cause: unknown) => {
    throw unreadable(area, file, cause)
  })
  const info = await handle.stat()
  if (info.isFile()) return { handle, size: info.size }
  await handle.close()
  throw unreadable(area, file, { code: info.isDirectory() ? 'EISDIR' : 'it is no file' })
}
