/** Making folders on file systems of any kind. */
import { mkdir, stat } from 'node:fs/promises'
import { dirname } from 'node:path'

/**
 * Makes a folder, and those that it lies in. Not `mkdir` with `recursive`: where a file system answers "not found" to any
 * new folder, as /proc does, that takes it for a missing parent and in Node 20 goes round for ever.
 */
export async function makeFolder(path: string): Promise<void> {
  if (await isFolder(path)) return
  const parent = dirname(path)
  if (parent !== path) await makeFolder(parent)
  await mkdir(path).catch(async (error: unknown) => {
    if (!(await isFolder(path))) throw error // another may have made it meanwhile
  })
}

async function isFolder(path: string): Promise<boolean> {
  return await stat(path).then(
    (info) => info.isDirectory(),
    () => false,
  )
}
