/**
 * Who writes to a file that is downloaded by half. While a download is at it, the name has the process in it
 * (`blob.1234.x7k2.incomplete`), so that no other writes to it as well: each has a file of its own, and the last to be done
 * gives the same content the same name. A download that fails leaves `blob.incomplete`, for anyone to go on with (as the
 * Hugging Face tools name theirs); what a process left that was killed is known by its process being gone.
 */
import { readdir, rename } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'

/** The file to write to, which holds what an earlier download left. */
export async function claimPartial(target: string): Promise<string> {
  const own = `${target}.${process.pid}.${Math.random().toString(36).slice(2)}.incomplete`
  for (const name of await readdir(dirname(target))) {
    if (!isFree(name, basename(target))) continue
    const isTaken = await rename(join(dirname(target), name), own).then(
      () => true,
      () => false, // another process was sooner
    )
    if (isTaken) break
  }
  return own
}

/** After a failure: what there is of the file may be gone on with. */
export async function freePartial(target: string, partial: string): Promise<void> {
  await rename(partial, `${target}.incomplete`).catch(() => {}) // nothing came, or it was not what it should be
}

function isFree(name: string, blob: string): boolean {
  const [, owner] = name.startsWith(blob) ? (/^(?:\.(\d+)\.\w+)?\.incomplete$/.exec(name.slice(blob.length)) ?? []) : []
  return name === `${blob}.incomplete` || (owner !== undefined && !isRunning(Number(owner)))
}

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM' // it runs, and is somebody else's
  }
}
