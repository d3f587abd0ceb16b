/** Files that a command writes when its work is done: whether that will be possible is asked before. */
import { access, constants, stat, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { invalidArgument, KvasirError } from '../tensor/error.ts'
import type { Terminal } from './terminal.ts'

/**
 * Makes nothing, so that nothing is left of a command that is interrupted.
 * @param option for the message: "--plot"
 * @throws KvasirError `not-found` for a file in a folder that is not there, `denied` for what can't be written to
 */
export async function checkWritable(option: string, file: string | undefined): Promise<void> {
  if (file === undefined) return
  if (file === '') throw invalidArgument('cli', `expected a file for ${option}, got ""`)
  const info = await stat(file).catch(() => undefined)
  if (info?.isDirectory())
    throw new KvasirError('denied', 'cli', `expected a file for ${option}, got the folder ${file}`)
  await access(info ? file : dirname(file), constants.W_OK).catch((cause: NodeJS.ErrnoException) => {
    const isMissing = cause.code === 'ENOENT'
    const reason = isMissing ? `there is no folder ${dirname(file)}` : `it can't be written to (${cause.code})`
    const code = isMissing ? 'not-found' : 'denied'
    throw new KvasirError(code, 'cli', `expected a file for ${option}, got ${file}: ${reason}`, { cause })
  })
}

/** After the results, which would be lost where the file can't be written all the same. */
export async function writePlot(terminal: Terminal, file: string, svg: string): Promise<void> {
  await writeFile(file, svg)
  terminal.note(`drawn: ${file}`)
}
