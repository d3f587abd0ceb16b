/** Finds the files that come with the package, from the sources as well as from the compiled package. */
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { KvasirError } from '../tensor/error.ts'

/** The folder of this package's package.json, which is above src/ and above dist/. */
function packageRoot(): string {
  for (let folder = dirname(fileURLToPath(import.meta.url)); ; folder = dirname(folder)) {
    const file = join(folder, 'package.json')
    if (existsSync(file) && JSON.parse(readFileSync(file, 'utf8')).name === 'kvasir') return folder
    if (folder === dirname(folder))
      throw new KvasirError('internal', 'cli', 'expected a package.json of kvasir above the program')
  }
}

export function packageVersion(): string {
  return JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')).version
}

/** The model that is used when no other is named. */
export function bundledModel(): string {
  return join(packageRoot(), 'models', 'kvasir-tiny')
}
