/** Texts that a command line names. */
import { readFile } from 'node:fs/promises'
import { KvasirError } from '../tensor/error.ts'

/**
 * @param what for the message: "the prompt file"
 * @throws KvasirError `not-found` for a file that can't be read
 */
export async function readTextFile(what: string, file: string): Promise<string> {
  return await readFile(file, 'utf8').catch((cause) => {
    throw new KvasirError('not-found', 'cli', `can't read ${what} ${file}: ${cause.message}`, { cause })
  })
}
