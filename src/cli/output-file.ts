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
  const info = await stat(file).catch((cause: NodeJS.ErrnoException) => {
    // Nothing of this name yet: the folder decides. A name too long, or below a file, can never be written.
    if (cause.code !== 'ENOENT') throw notWritable(option, file, cause)
  })
  if (info?.isDirectory())
    throw new KvasirError('denied', 'cli', `expected a file for ${option}, got the folder ${file}`)
  await access(info ? file : dirname(file), constants.W_OK).catch((cause: NodeJS.ErrnoException) => {
    throw notWritable(option, file, cause)
  })
}

function notWritable(option: string, file: string, cause: NodeJS.ErrnoException): KvasirError {
  const isMissing = cause.code === 'ENOENT'
  const reason = isMissing ? `there is no folder ${dirname(file)}` : `it can't be written to (${cause.code})`
  const message = `expected a file for ${option}, got ${file}: ${reason}`
  return new KvasirError(isMissing ? 'not-found' : 'denied', 'cli', message, { cause })
}

/** After the results, which would be lost where the file can't be written all the same. */
export async function writePlot(terminal: Terminal, file: string, svg: string): Promise<void> {
  await writeFile(file, svg)
  terminal.note(`drawn: ${file}`)
}
