/** Names of files and folders that are written under another name first, so that nobody ever sees half of them. */
import { basename, dirname, join } from 'node:path'

/** Of the name that it stands for, which may be as long as names can be. */
const shownLength = 40

/** A name of nobody else's beside `path`, which the finished file is then renamed to. */
export function temporaryBeside(path: string): string {
  const own = `${process.pid}.${Math.random().toString(36).slice(2)}`
  return join(dirname(path), `.${basename(path).slice(0, shownLength)}.${own}.tmp`)
}
